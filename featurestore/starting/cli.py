"""The command `init`: look at a table, say what its columns seem to be, write a first job and study."""

from __future__ import annotations

import argparse
import os
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from featurestore.base.hostile_text import visible
from featurestore.base.json_text import print_json
from featurestore.base.number_words import counted
from featurestore.base.terminal import print_facts, print_page
from featurestore.errors import CorpusError, UsageError
from featurestore.finding.files import IMAGE, TABLE_OR_IMAGE, find_files
from featurestore.finding.patterns import escaped
from featurestore.starting.draft import image_job_text, image_study_text, job_text, study_text
from featurestore.starting.guess import ROWS, Documents, Guess, Roles, guess_roles, in_words
from featurestore.storage.user_outputs import local_folder
from featurestore.tables.table import no_column, read_head


class ModelChoice(NamedTuple):
    """A model and its SAE for a first job: lines of YAML, the SAE's name, and why these."""

    lines: tuple[str, ...]
    sae: str
    why: str


def init_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `sparsemill init`."""
    parser.description = (
        "Look at a table (CSV, JSON lines, Parquet; files of one corpus together), guess which columns hold texts, "
        "conversations or images, ids, labels, groups, languages and a given split, and write job.yaml and study.yaml "
        "with comments. Asks nothing, and writes over nothing. Of a folder of image files the job is one of images, "
        "whose labels are the folders that they lie in."
    )
    parser.epilog = (
        "examples:\n  sparsemill init comments.csv\n  sparsemill init part-*.parquet --out project --label toxic"
        "\n  sparsemill init photographs --out project"
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="CSV, JSON lines or Parquet, also .gz and .zst; or a folder"
    )
    parser.add_argument("--out", default=".", metavar="DIR", help="where to write the two files (default: here)")
    for role, what in (("text", "texts"), ("id", "ids"), ("label", "classes"), ("group", "what documents share")):
        parser.add_argument(f"--{role}", metavar="COLUMN", help=f"the column of {what}, instead of guessing it")


def init(args: argparse.Namespace) -> int:
    """Run `sparsemill init`."""
    out = local_folder(args.out, "--out")
    taken = [name for name in ("job.yaml", "study.yaml") if (out / name).exists()]
    if taken:
        raise UsageError(f"{out / taken[0]} is there already and stays; say --out DIR for another place")
    for file in args.files:
        if "://" not in file and Path(file).is_dir() and (Path(file) / "store.json").is_file():
            raise UsageError(f"{file} is a feature store, which has its features already; give a table of texts")
    if (images := _images(args.files)) is not None:
        return _init_images(args, out, images)
    columns = read_head([escaped(file) for file in args.files], ROWS)
    roles = _given(guess_roles(columns), args, columns)
    if roles.text is None:
        raise UsageError(
            f"{args.files[0]}: no column looks like texts, conversations or images (columns: {', '.join(columns)}); "
            "say --text COLUMN"
        )
    choice = _model(args, roles.reads)
    places = [_from(out, file) if "://" not in file else file for file in args.files]
    written = {out / "job.yaml": job_text([escaped(place) for place in places], roles, choice.lines, "store")}
    if roles.label is not None:
        written[out / "study.yaml"] = study_text(roles, choice.sae, "store", "study")
    out.mkdir(parents=True, exist_ok=True)
    for path, text in written.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    if args.json:
        return print_json(
            {
                "version": 1,
                "rows_seen": roles.rows,
                **asdict(roles),
                "model": choice.why,
                "written": list(map(str, written)),
            }
        )
    _tell(roles, choice, list(written))
    return 0


def _from(folder: Path, file: str) -> str:
    """The path of a file from a folder that may be a link: a job's paths start where its file really lies."""
    return os.path.relpath(os.path.abspath(file), folder.resolve())  # noqa: PTH100  (links stay what they are)


def _images(files: list[str]) -> tuple[int, dict[str, int]] | None:
    """How many images a folder has, and how many in each folder of them; None where it is no folder of images."""
    if len(files) != 1 or not Path(files[0]).is_dir():
        return None
    try:
        found = find_files([escaped(files[0])], TABLE_OR_IMAGE)
    except CorpusError:  # reading it as a table says what is wrong with it
        return None
    if any(file.format != IMAGE for file in found):
        return None
    labels = Counter(str(file.partitions.get("label")) for file in found)
    return len(found), dict(labels.most_common())


def _init_images(args: argparse.Namespace, out: Path, images: tuple[int, dict[str, int]]) -> int:
    """`init` of a folder of images."""
    (count, labels), choice = images, _model(args, "image")
    folder = escaped(_from(out, args.files[0]))
    written = {out / "job.yaml": image_job_text(folder, count, labels, choice.lines, "store")}
    if len(labels) > 1:
        written[out / "study.yaml"] = image_study_text(choice.sae, "store", "study")
    out.mkdir(parents=True, exist_ok=True)
    for path, text in written.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    if args.json:
        facts = {"images": count, "classes": labels, "model": choice.why, "written": list(map(str, written))}
        return print_json({"version": 1, **facts})
    print(f"looked at {counted(count, 'image file')}")
    classes = ", ".join(f"{visible(name)} ({n:,})" for name, n in list(labels.items())[:4])
    more = "" if len(labels) > 1 else "; one folder is one class, so there is no study.yaml"
    print_facts([("label", f"the folder of each image: {classes}{', ...' if len(labels) > 4 else ''}{more}")])
    print_facts([("model", choice.why)])
    _next_steps(list(written))
    return 0


def _model(args: argparse.Namespace, reads: Documents) -> ModelChoice:
    """What the front door chose for this machine and such documents: this package knows no models."""
    choose: Callable[[Documents], ModelChoice] = args.choose_model
    return choose(reads)


def _given(roles: Roles, args: argparse.Namespace, columns: dict[str, list[object]]) -> Roles:
    """The guesses, with what was said instead of guessed."""
    said: dict[str, Any] = {}
    for role in ("text", "id", "label", "group"):
        name = getattr(args, role)
        if name is None:
            continue
        if name not in columns:
            raise UsageError(f"--{role}: {no_column(args.files[0], name, list(columns))}")
        if (other := next((one for one, guess in said.items() if guess.column == name), None)) is not None:
            raise UsageError(f"--{role} and --{other} name the same column '{name}'; leave one of them out")
        said[role] = Guess(name, "as you said")
    left = {name: values for name, values in columns.items() if name not in {guess.column for guess in said.values()}}
    roles = guess_roles(left) if said else roles
    if "text" in said:
        roles = replace(roles, reads=guess_roles({said["text"].column: columns[said["text"].column]}).reads)
    if "label" in said:
        only = guess_roles({said["label"].column: columns[said["label"].column]})
        roles = replace(roles, classes=only.classes or {"?": 0})
        if only.classes:
            said["label"] = Guess(said["label"].column, f"as you said: {in_words(only.classes)}")
    return replace(roles, rows=len(next(iter(columns.values()), ())), **said)


def _tell(roles: Roles, choice: ModelChoice, written: list[Path]) -> None:
    print_page(f"looked at {counted(roles.rows, 'row')}")
    named = (
        (roles.reads, roles.text),
        ("id", roles.id),
        ("label", roles.label),
        ("group", roles.group),
        ("language", roles.language),
        ("split", roles.split),
    )
    none = {
        "id": "no column of unique ids: documents are called FILE:ROW",
        "label": "no column looks like classes, so there is no study.yaml; say --label COLUMN",
    }
    facts = [
        (role, f"{visible(guess.column)}: {visible(guess.why)}" if guess else none.get(role, ""))
        for role, guess in named
    ]
    also = [("kept too", visible(", ".join(roles.kept)))] if roles.kept else []
    also += [("not kept", visible(", ".join(roles.others)))] if roles.others else []
    print_facts([*((role, text) for role, text in facts if text), *also, ("model", choice.why)])
    _next_steps(written)


def _next_steps(written: list[Path]) -> None:
    print_page(f"wrote {' and '.join(map(str, written))}; read {'them' if len(written) > 1 else 'it'}, then:")
    places = [shlex.quote(str(path)) for path in written]
    print(f"  sparsemill plan {places[0]}")
    print(f"  sparsemill {'run ' + ' '.join(places) if len(places) > 1 else 'extract ' + places[0]}")
