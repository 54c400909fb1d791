"""Read documents to score as they come: from the command line, from standard input a line at a time, or from files.

Whatever the source, they come in batches of bounded size, in order, each with an id; what cannot be read is a document
with an error, never a missing one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from featurestore.errors import CorpusError, StudyError, UsageError
from featurestore.finding.patterns import joined
from featurestore.specs.spec_file import parse_spec
from ray_jobs.corpus.read import DocumentRows, read_batches
from ray_jobs.corpus.scan import scan
from ray_jobs.corpus.slices import slices
from ray_jobs.spec import CorpusSpec

BATCH_DOCUMENTS, BATCH_CHARACTERS = 1_024, 1 << 22
"""Of one batch: enough that batches of tokens are full, and a few megabytes of text."""

LINE_BYTES = 1 << 24
"""Of one document on standard input: sixteen megabytes are some thousand pages."""

OPTIONS = {
    "corpus.path": "--input",
    "corpus.text": "--text-column",
    "corpus.id": "--id-column",
    "corpus.keep": "--evaluate",
}

LOOKED_AT = 4_096  # bytes in which a NUL tells that it is no text


def refuse_images(header: Mapping[str, Any]) -> None:
    """Refuse a model of images, before texts are looked for.

    Raises:
        StudyError: It was trained on features of images.
    """
    if (header["trained_on"]["identity"].get("corpus") or {}).get("image"):
        raise StudyError(
            f"{header['method']}: this model was trained on features of images; give --store with a store of them, or "
            "--job with the job that extracts them"
        )


def of_texts(texts: Sequence[str]) -> Iterator[DocumentRows]:
    """Texts of the command line; ids are 1, 2, ..."""
    yield from _batches((text, _surrogate(text)) for text in texts)


def of_lines(stream: BinaryIO) -> Iterator[DocumentRows]:
    """The lines of a stream of UTF-8, a document each; ids are line numbers, from 1.

    Raises:
        UsageError: It is empty or no text.
    """
    first = stream.readline(LINE_BYTES)
    if not first:
        raise UsageError("standard input is empty; give one document a line, or use --text or --input")
    if b"\0" in first[:LOOKED_AT]:
        raise UsageError(
            "standard input is no UTF-8 text (there are NUL bytes in its first line); give one document a line, "
            "or the file with --input"
        )
    yield from _batches(_decoded(_lines(first.removeprefix(b"\xef\xbb\xbf"), stream)))


def of_files(
    paths: Sequence[str], text: str | None = None, id: str | None = None, keep: Sequence[str] = ()
) -> Iterator[DocumentRows]:
    """The documents of files, as a job would read them.

    Args:
        paths: Files, patterns, folders or URLs.
        text: The column of the text; `text` where not given.
        id: The column of the id; without one, ids are "{file name}:{row}".
        keep: Further columns to read.

    Raises:
        CorpusError: No file or row, a file that cannot be read, a column that is not there, an id used twice.
    """
    with reworded():
        corpus = corpus_of(paths, text, id, keep)
        found = scan(corpus)
        parts = slices(found, 0, found.rows)
        for batch in read_batches(parts, corpus, found.keep_types, BATCH_DOCUMENTS, BATCH_CHARACTERS):
            if batch.doc_id:
                yield batch


def corpus_of(paths: Sequence[str], text: str | None, id: str | None, keep: Sequence[str]) -> CorpusSpec:
    """The corpus that options of the command line describe.

    Raises:
        UsageError: A path or column that cannot be one.
    """
    mapping = {
        "path": [joined(path, Path.cwd()) for path in paths],
        "text": text or "text",
        "id": id,
        "keep": list(keep),
    }
    return parse_spec(mapping, CorpusSpec, UsageError, "--input")


@contextmanager
def reworded() -> Iterator[None]:
    """What is wrong with a corpus, said of options and not of keys of JOB.yaml.

    Raises:
        CorpusError: In place of one about keys.
    """
    try:
        yield
    except CorpusError as error:
        sentence = str(error)
        for key, option in OPTIONS.items():
            sentence = sentence.replace(key, option)
        sentence = sentence.replace("give corpus.format or a narrower path", "rename it to .parquet, .jsonl or .csv")
        sentence = sentence.replace("check corpus.csv.encoding", "save it as UTF-8")
        sentence = sentence.replace("set corpus.csv if", "give --job, whose corpus.csv says it, if")
        raise CorpusError(sentence) from None


def _lines(line: bytes, stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines without their ends, the first of which is there already; None for one that is too long."""
    while line:
        if whole := line.endswith(b"\n") or len(line) < LINE_BYTES:
            yield line.removesuffix(b"\n").removesuffix(b"\r")
        else:
            yield None
        while not whole:
            line = stream.readline(LINE_BYTES)
            whole = line.endswith(b"\n") or len(line) < LINE_BYTES
        line = stream.readline(LINE_BYTES)


def _decoded(lines: Iterable[bytes | None]) -> Iterator[tuple[str | None, str | None]]:
    """(text, error) of each line."""
    for line in lines:
        if line is None:
            yield None, f"the line is longer than {LINE_BYTES >> 20} MiB"
            continue
        try:
            yield line.decode("utf-8"), None
        except UnicodeDecodeError:
            yield None, "the line is not UTF-8"


def _batches(documents: Iterable[tuple[str | None, str | None]]) -> Iterator[DocumentRows]:
    """Numbered documents, some at a time."""
    batch, size = DocumentRows([], [], {}, []), 0
    for number, (text, error) in enumerate(documents, 1):
        batch.doc_id.append(str(number))
        batch.text.append(None if error else text)
        batch.error.append(error)
        size += len(text or "")
        if len(batch.doc_id) >= BATCH_DOCUMENTS or size >= BATCH_CHARACTERS:
            yield batch
            batch, size = DocumentRows([], [], {}, []), 0
    if batch.doc_id:
        yield batch


def _surrogate(text: str) -> str | None:
    """What a terminal that is not UTF-8 makes of bytes."""
    return "the text is not UTF-8" if any("\ud800" <= char <= "\udfff" for char in text) else None
