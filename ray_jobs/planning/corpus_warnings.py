"""Say what the pass over a corpus found that its owner should know: rows that will fail, values that are lost.

Warnings tell what will be lost or is doubtful, each with what to do; notes tell where values come from. The counts are
made by `corpus.scan`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from featurestore.base.number_words import counted, share
from ray_jobs.tolerance import exceeds, limit

if TYPE_CHECKING:
    from ray_jobs.corpus.scanned import CorpusFile, CorpusScan

NAMED_FILES = 3  # files of a kind of trouble that are named, with so many reasons each: who mends these knows the rest
SHOWN_NAMES = 6  # of classes
LOOKED_AT_FOLDERS = 16  # that Spark wrote: a request each
_SPARK_PART = re.compile(r"part-\d{5}.*")


def corpus_warnings(scan: CorpusScan, max_errors: float) -> list[str]:
    """What will be lost or is doubtful.

    Args:
        scan: The corpus.
        max_errors: `corpus.max_errors` of the job.
    """
    found = [
        _too_many(scan, max_errors),
        *_unreadable(scan),
        *_unreadable_sample(scan),
        _blank(scan),
        *_unkept(scan),
        *_fused(scan),
        _unfinished(scan),
    ]
    return [sentence for sentence in found if sentence]


def corpus_notes(scan: CorpusScan, keep: Sequence[str]) -> tuple[str, ...]:
    """What is good to know and needs nothing to be done: where kept values come from, and which more there could be."""
    notes = []
    for column in dict.fromkeys(name for name, _ in scan.classes):
        names = [names for name, names in scan.classes if name == column]
        listed = ", ".join(names[0][:SHOWN_NAMES]) + (", ..." if len(names[0]) > SHOWN_NAMES else "")
        others = (
            f"; the files have {counted(len(names), 'list')} of them, and each counts by its own" if names[1:] else ""
        )
        notes.append(f"'{column}' is kept as the names that the files have for its numbers ({listed}){others}")
    told = {name for file in scan.files for name, _ in file.told}
    notes += [f"'{name}' is kept as the directories of the files have it" for name in keep if name in told]
    there: dict[str, set[str | None]] = {}
    for file in scan.files:
        for name, value in file.partitions.items():
            there.setdefault(name, set()).add(value)
    offered = [f"{name} ({counted(len(values), 'value')})" for name, values in there.items() if name not in keep]
    if offered:
        notes.append(f"the directories of the corpus tell {', '.join(offered)}; corpus.keep can name them")
    return tuple(notes)


def _too_many(scan: CorpusScan, max_errors: float) -> str | None:
    """Whether a run is known to fail for what the pass has counted."""
    if not exceeds(total := sum(file.unreadable for file in scan.files), scan.rows, max_errors):
        return None
    return (
        f"{_part(total, scan.rows)} will have an error, more than corpus.max_errors: {limit(max_errors)} allows, so "
        "extract will end with exit code 1; mend the corpus, or raise corpus.max_errors"
    )


def _unreadable(scan: CorpusScan) -> list[str]:
    """Rows that will have an error, by file: those that are counted, and not only sampled."""
    total = sum(file.unreadable for file in scan.files)
    if not total:
        return []
    worst = sorted((file for file in scan.files if file.unreadable), key=lambda file: -file.unreadable)
    named = [f"{file.name}: {_reasons(scan, file)}" for file in worst[:NAMED_FILES]]
    more = f"; and {counted(len(worst) - NAMED_FILES, 'more file')}" if len(worst) > NAMED_FILES else ""
    settings = sorted({one.setting for one in scan.unreadable if one.file == worst[0].name and not one.sampled})
    # Which rows of a Parquet file lack both an id and a text is not known.
    kinds = {(one.file, one.setting) for one in scan.unreadable if not one.sampled}
    twice = [f for f in worst if f.format == "parquet" and sum(name == f.name for name, _ in kinds) > 1]
    least = "at least " if twice else ""
    return [
        f"{least}{_part(total, scan.rows)} cannot be read and get an error "
        f"instead of features ({'; '.join(named)}{more}); mend the rows, or check {' and '.join(settings)}"
    ]


def _part(count: int, rows: int) -> str:
    if count == rows:
        return f"all {counted(rows, 'document')}"
    return f"{count:,} of {counted(rows, 'document')} ({share(count, rows)})"


def _reasons(scan: CorpusScan, file: CorpusFile) -> str:
    kinds = [one for one in scan.unreadable if one.file == file.name and not one.sampled]
    said = [f"{one.count:,} such as row {one.row:,}, {one.example}" for one in kinds[:NAMED_FILES]]
    return ", ".join([*said, *(["..."] if len(kinds) > NAMED_FILES else [])])


def _unreadable_sample(scan: CorpusScan) -> list[str]:
    sampled = [one for one in scan.unreadable if one.sampled]
    return [
        f"{one.count:,} of {counted(one.looked_at, 'sampled row')} of {one.file} cannot be read (row {one.row:,}, "
        f"{one.example}); such rows will have an error instead of features"
        for one in sampled[:NAMED_FILES]
    ]


def _blank(scan: CorpusScan) -> str | None:
    if scan.images or not scan.sample or any(text.strip() for text in scan.sample):
        return None
    return (
        f"all {counted(len(scan.sample), 'sampled text')} are empty, and empty documents have no features; check "
        "corpus.text"
    )


def _unkept(scan: CorpusScan) -> list[str]:
    return [
        f"{one.count:,} of {counted(one.looked_at, 'value')} of '{one.column}' that were looked at cannot be kept and "
        f"will be null ({one.example}), while their documents are extracted; leave it out of corpus.keep, or write it "
        "as text or numbers"
        for one in scan.unkept
    ]


def _fused(scan: CorpusScan) -> list[str]:
    return [file.fused.sentence(file.name, "corpus.csv") for file in scan.files if file.fused.count][:NAMED_FILES]


def _unfinished(scan: CorpusScan) -> str | None:
    """Whether Spark was still writing, or had failed, when the corpus was read."""
    from pyarrow.fs import FileType

    from featurestore.storage.files import filesystem

    folders = {
        (file.root, _data_set(file.path)) for file in scan.files if _SPARK_PART.fullmatch(PurePosixPath(file.path).name)
    }
    for root, folder in sorted(folders)[:LOOKED_AT_FOLDERS]:
        fs, _ = filesystem(root)
        done, writing = fs.get_file_info([f"{folder}/_SUCCESS", f"{folder}/_temporary"])
        if writing.type != FileType.NotFound and done.type == FileType.NotFound:
            return (
                f"{folder} has _temporary and no _SUCCESS: Spark was still writing it, or failed; wait for it, or "
                "write it again"
            )
    return None


def _data_set(path: str) -> str:
    """The directory that Spark wrote: that of a part, or the one that holds its partitions."""
    folder = path.rpartition("/")[0]
    while "=" in folder.rpartition("/")[2]:
        folder = folder.rpartition("/")[0]
    return folder
