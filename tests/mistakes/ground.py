"""What a stranger's folder holds: corpora, some of them broken, a store, an unfinished one, a study and its model."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import yaml

from tests.training.stores import SAE, build_store, make_documents
from training.report.study_page import write_study_report
from training.spec import load_study
from training.study import run_study

JOB = """\
corpus: {path: good.jsonl, id: id, keep: [label]}
model: {name: ./model, max_tokens: 64}
saes: [{path: sae, name: tiny}]
store: out
"""
STUDY = f"""\
store: store
label: label
features: [{{sae: {SAE}}}]
split: {{seeds: 1, folds: 2}}
bootstrap: 100
out: out
"""
LABEL = """\
corpus: {path: good.jsonl, id: id}
model: {name: ./model}
task: {prompt: text, choices: [ham, spam], answer: label}
out: labels.parquet
"""
ROWS = [{"id": f"d{n}", "text": f"a text about {n}", "label": "ham" if n % 2 else "spam", "n": n} for n in range(24)]


def make_ground(folder: Path) -> None:
    """Fill an empty folder."""
    write_corpora(folder)
    documents = make_documents(n=60, groups=20)
    documents.extra = {
        "lang": ["en", "de"] * 30,
        "one": ["same"] * 60,
        "part": ["train", "train", "test"] * 20,
        "each": list(documents.ids),
    }
    build_store(folder / "store", documents)
    build_store(folder / "two", make_documents(n=12), saes=(SAE, "l2_tiny"))
    build_store(folder / "textless", make_documents(n=40), keep_text=False)
    many = make_documents(n=310)
    many.extra = {"author": [f"author {n}" for n in range(310)]}
    build_store(folder / "authors", many)
    build_store(folder / "others", make_documents(n=40, prefix="other"))
    build_store(folder / "unfinished", make_documents(n=12))
    (folder / "unfinished" / "parts" / "part-000001.parquet").unlink(missing_ok=True)
    (folder / "unfinished" / "manifest.json").unlink(missing_ok=True)
    build_store(folder / "damaged", make_documents(n=12))
    part = sorted((folder / "damaged" / "parts").glob("*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-40] + b"\0" * 40)
    study = yaml.safe_load(STUDY) | {"out": "study"}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    run_study(load_study(folder / "study.yaml"))
    write_study_report(str(folder / "study"))
    (folder / "job.yaml").write_text(JOB)
    (folder / "label.yaml").write_text(LABEL)
    of_out = study | {"store": "out", "out": "of-out"}
    (folder / "of-out.yaml").write_text(yaml.safe_dump(of_out))
    (folder / "of-lang.yaml").write_text(yaml.safe_dump(of_out | {"by": ["lang"]}))
    (folder / "of-labels.yaml").write_text(yaml.safe_dump(of_out | {"label": "labels"}))


def write_corpora(folder: Path) -> None:
    """Tables as people have them, and as they should not be."""
    lines = "".join(f"{json.dumps(row)}\n" for row in ROWS)
    (folder / "good.jsonl").write_text(lines)
    (folder / "twice.jsonl").write_text(lines + lines.splitlines()[0] + "\n")
    (folder / "good.csv").write_text("id,text,label\n" + "".join(f"{r['id']},{r['text']},{r['label']}\n" for r in ROWS))
    (folder / "same.csv").write_text("id,text,text\n1,a,b\n")
    (folder / "numbers.csv").write_text("a,b\n" + "".join(f"{n},{n * n}\n" for n in range(20)))
    stances = [f"doc-{n},{('against', 'favor', 'undecided')[n % 3]}\n" for n in range(60)]
    (folder / "stances.csv").write_text("id,stance\n" + "".join(stances))
    (folder / "empty.csv").write_bytes(b"")
    (folder / "header.csv").write_text("id,text,label\n")
    (folder / "latin.csv").write_bytes("id,text\n1,schön und gut\n".encode("latin-1"))
    (folder / "utf16.csv").write_bytes("id,text\n1,schön und gut\n".encode("utf-16"))
    (folder / "array.json").write_text(json.dumps(ROWS))
    (folder / "broken.parquet").write_bytes(b"PAR1 and then nothing that Parquet has")
    (folder / "broken.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:-20])
    (folder / "sheet.xlsx").write_bytes(b"PK\x03\x04 a sheet")
    (folder / "notes.txt").write_text("some notes\n")
    (folder / "some" / "deep").mkdir(parents=True)
    (folder / "some" / "deep" / "notes.md").write_text("# notes\n")
    (folder / "void").mkdir()


def traces(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and directory below a folder, and its size and time of change: quicker than `digest`."""
    found = {}
    for path in folder.rglob("*"):
        about = path.stat()
        found[str(path.relative_to(folder))] = (about.st_size, about.st_mtime_ns) if path.is_file() else (0, 0)
    return found


def digest(folder: Path) -> dict[str, str]:
    """Every file and directory below a folder, with what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"
        for path in sorted(folder.rglob("*"))
    }
