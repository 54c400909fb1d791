"""Go through all files of a corpus once, before anything is computed, and note what a job must know.

That is: the files with their sha256, how many rows each has and where they start, the types of the kept columns, that
ids are unique, and a sample of texts to count tokens in. A corpus that cannot be used is refused here. Text files are
hashed while they are parsed; Parquet files, of which only footer and ids are looked at, are hashed several at a time.
What was found is a `CorpusScan` (`scanned`); documents are read later, by `read`.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from featurestore.errors import CorpusError
from featurestore.finding.files import IMAGE, SourceFile, look_up
from featurestore.tables.arrays import told_apart
from featurestore.tables.class_labels import class_names
from featurestore.tables.csv_head import with_dialect
from featurestore.tables.images import ImageFile, document_image
from featurestore.tables.json_and_csv import Fused, csv_header, json_keys, text_records
from featurestore.tables.parquet import UNSEEN_KINDS, number_kinds, open_parquet, parquet_groups, parquet_kinds
from featurestore.tables.partitions import without_partitions
from featurestore.tables.record import (
    MISSING,
    Counted,
    Digest,
    Wanted,
    check_columns,
    decompressed,
    missing_column,
    open_raw,
    refusals,
)
from featurestore.tables.values import column_type, document_id, document_text, document_turns, kind_of, stored_value
from ray_jobs.corpus.image_files import ImagesDigest, image_files, images_sha256
from ray_jobs.corpus.read import document_of, row_id
from ray_jobs.corpus.scanned import MARK_ROWS, CorpusFile, CorpusScan, UnkeptValues
from ray_jobs.corpus.slices import Slice, records_of, source_fields
from ray_jobs.corpus.unique_ids import UniqueIds
from ray_jobs.corpus.unreadable_counts import ErrorCounts, UnreadableRows, count_null_texts, no_row_can_be_read

if TYPE_CHECKING:
    from ray_jobs.spec import CorpusSpec

SAMPLE_TEXTS = 512  # enough for the mean length of a corpus to within some percent
_SAMPLE_CHARACTERS = 100_000  # kept of each sampled text: enough to tell how many characters make a token
_SAMPLE_ROW_GROUPS = 8  # Parquet row groups to take texts from, spread over all files
_SAMPLE_GROUP_ROWS = 1 << 17  # rows decoded of each at most
_SAMPLE_IMAGES = 64  # rows of images decoded of each: some tens of MB
_KEPT_GROUP_ROWS = 512  # rows of each whose kept values are looked at: images among them are not small
HASHED_AT_ONCE = 8  # Parquet files: as many as keep an object store busy; hashing itself runs beside reading


def scan(corpus: CorpusSpec, progress: Callable[[int, int], None] | None = None) -> CorpusScan:
    """Read every file of a corpus once.

    Args:
        corpus: Which files and columns.
        progress: Called with (bytes read, bytes in all) from time to time.

    Raises:
        CorpusError: No file or no row, a file that cannot be read, a column that is not there, an id used twice.
    """
    looked_up = look_up(corpus.path, corpus.find_as)
    found = looked_up.files
    total = sum(file.size or 0 for file in found)
    done = 0
    lock = Lock()

    def advance(n_bytes: int) -> None:
        nonlocal done
        with lock:
            done += n_bytes
            if progress:
                progress(done, total)

    state = _Scanned(corpus)
    with _hashes([file for file in found if file.format in ("parquet", IMAGE)], advance) as sha256s:
        files = tuple(
            _scan_parquet(file, state, sha256s[file].result())
            if file.format == "parquet"
            else _scan_image(file, state, sha256s[file].result())
            if file.format == IMAGE
            else _scan_text(file, state, advance)
            for file in found
        )
    rows = sum(file.rows for file in files)
    if rows == 0:
        raise CorpusError(f"corpus.path matches only files without a single document; check {files[0].uri}")
    if state.broken == rows:
        raise CorpusError(no_row_can_be_read(state.unreadable, rows))
    for name in corpus.keep:
        if name not in state.seen:
            keys = json_keys(next(file for file in files if file.format in {"json", "jsonl"} and file.rows))
            raise CorpusError(missing_column("the corpus", name, "corpus.keep", keys))
    if corpus.id is not None and state.ids.repeated():
        state.ids.confirm((doc_id, f"{file.name}:{row}") for file in files for row, doc_id in _ids(file, corpus.id))
    sample = [*state.sample.texts, *_parquet_sample(files, state)]
    keep_types = {name: column_type(_seen_kinds(name, state)) for name in corpus.keep}
    _look_at_kept(files, [name for name in corpus.keep if keep_types[name] == "string" and name != corpus.text], state)
    return CorpusScan(
        files=files,
        rows=rows,
        keep_types=keep_types,
        sample=tuple(one.text for one in sample),
        sample_times=tuple(one.times for one in sample),
        mean_text_bytes=(sum(one.n_bytes for one in sample) + state.image_bytes) / max(len(sample), 1),
        reached_twice=looked_up.again,
        unkept=tuple(
            UnkeptValues(name, state.unkept[name], state.looked_at, state.unkept_example[name])
            for name in corpus.keep
            if state.unkept[name]
        ),
        unreadable=tuple(state.unreadable),
        classes=tuple(state.classes),
        images=corpus.image is not None,
    )


class _Scanned:
    """What the pass over the files gathers."""

    def __init__(self, corpus: CorpusSpec) -> None:
        self.wanted = Wanted(corpus.text, corpus.id, corpus.keep, corpus.image, corpus.messages is not None)
        self.csv = corpus.csv
        self.turns = self.wanted.turns
        self.kinds: dict[str, set[str]] = {name: set() for name in corpus.keep}
        self.unseen: dict[str, list[SourceFile]] = {name: [] for name in corpus.keep}  # whose numbers may have to be
        self.unkept = dict.fromkeys(corpus.keep, 0)
        self.unkept_example: dict[str, str] = {}
        self.looked_at = 0
        self.seen: set[str] = set()  # names of wanted columns that some row or schema has
        self.ids = UniqueIds()
        self.sample = _Sample(SAMPLE_TEXTS, self.turns)
        self.classes: dict[tuple[str, tuple[str, ...]], None] = {}
        self.broken = 0  # rows that are no rows of their format
        self.unreadable: list[UnreadableRows] = []
        self.image_bytes = 0  # of encoded images among the sampled rows
        self.counted_nulls: set[str] = set()  # names of Parquet files whose statistics tell which texts are null

    def tell(self, told: Mapping[str, str | None]) -> tuple[tuple[str, str | None], ...]:
        """Take note of kept values that a file's path tells; like fields of CSV they are text that may be numbers."""
        for name, value in told.items():
            self.seen.add(name)
            self.kinds[name].add(kind_of(value, is_csv=True))
        return tuple(told.items())

    def check_kept(self, name: str, value: Any, file: SourceFile, row: int) -> None:
        """Count a value that goes into a column of text, if it cannot be kept."""
        _, problem = stored_value(value, "string", name)
        if problem:
            self.unkept[name] += 1
            self.unkept_example.setdefault(name, f"{file.name} row {row}, {problem}")


class _Sampled(NamedTuple):
    """What is kept of a sampled text.

    Attributes:
        text: The text or its beginning.
        times: How many times as long as that the whole is.
        n_bytes: Of the whole.
    """

    text: str
    times: float
    n_bytes: int


def _sampled(text: str, conversation: bool) -> _Sampled:
    """A text as the sample has it; of a long conversation every turn is cut, and it stays a conversation."""
    n_bytes = len(text.encode("utf-8", "replace"))
    if len(text) <= _SAMPLE_CHARACTERS:
        return _Sampled(text, 1.0, n_bytes)
    if not conversation:
        return _Sampled(text[:_SAMPLE_CHARACTERS], len(text) / _SAMPLE_CHARACTERS, n_bytes)
    turns = json.loads(text)
    whole = sum(len(turn["content"]) for turn in turns)
    for turn in turns if whole > _SAMPLE_CHARACTERS else ():
        turn["content"] = turn["content"][: math.ceil(len(turn["content"]) * _SAMPLE_CHARACTERS / whole)]
    kept = sum(len(turn["content"]) for turn in turns)
    return _Sampled(json.dumps(turns, ensure_ascii=False, allow_nan=False), max(whole, 1) / max(kept, 1), n_bytes)


class _Sample:
    """Every n-th text, with n doubled whenever there are too many: even spacing without knowing the length."""

    def __init__(self, limit: int, turns: bool) -> None:
        self.texts: list[_Sampled] = []
        self._limit, self._turns = limit, turns
        self._step = 1
        self._count = 0

    def offer(self, text: Any) -> None:
        if not isinstance(text, str):
            return
        if self._count % self._step == 0:
            if len(self.texts) == self._limit:
                self.texts = self.texts[::2]
                self._step *= 2
                if self._count % self._step:
                    self._count += 1
                    return
            self.texts.append(_sampled(text, self._turns))
        self._count += 1


def _scan_text(file: SourceFile, state: _Scanned, advance: Callable[[int], None]) -> CorpusFile:
    """One pass over a JSONL or CSV file, hashing the bytes on the way."""
    wanted = state.wanted
    file = with_dialect(file, state.csv, wanted.settings())
    fused = Fused()
    is_csv = file.format == "csv"
    header = csv_header(file) if is_csv else ()
    read, told = without_partitions(file, header if is_csv else None, wanted)
    absent = set(told) if is_csv else set()
    if header:
        check_columns(file, header, read)
        state.seen.update(read.keep)
    kinds = [(name, state.kinds[name]) for name in read.keep]
    marks = array("q")
    rows = readable = 0
    errors = ErrorCounts()
    has_text = has_id = has_image = False
    with refusals(file), ExitStack() as stack:
        images = stack.enter_context(ImagesDigest())
        digest = Digest(open_raw(file, stack), advance)
        counted = Counted(decompressed(digest, file, stack))
        file, stream = told_apart(file, cast("BinaryIO", counted))
        # An empty CSV file has no header; it is hashed and has no rows.
        for record in text_records(stream, file, read, header, 0, fused) if header or not is_csv else ():
            if rows % MARK_ROWS == 0:
                marks.append(record.offset)
            rows += 1
            doc_id, text, error, setting = document_of(record, wanted.text, wanted.id, state.turns)
            if wanted.image is not None and not error:
                image, error = document_image(record.image, wanted.image, file)
                setting = "corpus.image"
                if isinstance(image, ImageFile):
                    images.add(image)
            if error:
                errors.add(rows - 1, error, setting)
            if wanted.id is not None:
                state.ids.add(doc_id if doc_id is not None else f"{file.name}:{rows - 1}")
            if record.error:
                continue
            readable += 1
            has_text = has_text or record.text is not MISSING
            has_id = has_id or record.id is not MISSING
            has_image = has_image or record.image is not MISSING
            for (name, found), value in zip(kinds, record.keep, strict=True):
                if value is MISSING:
                    absent.add(name)
                    continue
                state.seen.add(name)
                found.add(kind := kind_of(value, is_csv))
                # A field of CSV is UTF-8, or its row cannot be read, and so is a document's text.
                if kind == "text" and not is_csv and name != wanted.text:
                    state.check_kept(name, value, file, rows - 1)
            state.sample.offer(text if state.turns or wanted.text is None else record.text)
        sha256, images_sha = digest.hexdigest(), images.hexdigest()
    state.looked_at += rows
    state.unreadable += errors.rows(file.name, rows)
    state.broken += rows - readable
    if readable and not (has_text and has_id and has_image):
        setting, column = (wanted.text_setting, wanted.text) if not has_text else ("corpus.id", wanted.id)
        if has_text and has_id:
            setting, column = "corpus.image", wanted.image
        raise CorpusError(missing_column(file.uri, str(column), setting, json_keys(file)))
    text_bytes = counted.count if file.compression else 0
    return CorpusFile(
        **source_fields(file),
        sha256=sha256,
        rows=rows,
        header=header,
        text_bytes=text_bytes,
        marks=marks,
        unreadable=sum(errors.by_setting.values()),
        told=state.tell({name: value for name, value in told.items() if name in absent}),
        fused=fused,
        images=images_sha,
    )


def _scan_image(file: SourceFile, state: _Scanned, sha256: str) -> CorpusFile:
    """An image in a file of its own: one row, whose path tells what there is beside it."""
    read, told = without_partitions(file, (), state.wanted)
    check_columns(file, (), replace(read, image=None))
    state.sample.offer("")
    return CorpusFile(**source_fields(file), sha256=sha256, rows=1, told=state.tell(told))


@contextmanager
def _hashes(files: Sequence[SourceFile], advance: Callable[[int], None]) -> Iterator[dict[SourceFile, Future[str]]]:
    """The sha256s of files, several computed at a time: storage has more than one reader's worth, and cores too."""

    def sha256_of(file: SourceFile) -> str:
        with refusals(file), ExitStack() as stack:
            return Digest(open_raw(file, stack), advance).hexdigest()

    pool = ThreadPoolExecutor(HASHED_AT_ONCE, "sha256")
    try:
        yield {file: pool.submit(sha256_of, file) for file in files}
    finally:
        pool.shutdown(cancel_futures=True)  # after the first file that is refused nobody needs the others


def _scan_parquet(file: SourceFile, state: _Scanned, sha256: str) -> CorpusFile:
    """The footer and the id column of a Parquet file."""
    wanted = state.wanted
    errors = ErrorCounts()
    with refusals(file), ExitStack() as stack:
        parquet = open_parquet(file, stack)
        read, told = without_partitions(file, parquet.schema_arrow.names, wanted)
        check_columns(file, parquet.schema_arrow.names, read)
        state.classes |= {
            (name, names): None for name, names in class_names(parquet.schema_arrow).items() if name in read.keep
        }
        for name, kind in parquet_kinds(file, parquet.schema_arrow, read).items():
            state.kinds[name].add(kind)
            if kind in UNSEEN_KINDS:
                state.unseen[name].append(file)
        rows = parquet.metadata.num_rows
        if wanted.text is not None and count_null_texts(parquet, wanted.text, errors):
            state.counted_nulls.add(file.name)
        images = images_sha256(image_files(file, parquet, wanted.image)) if wanted.image is not None else ""
    state.seen.update(read.keep)
    scanned = CorpusFile(**source_fields(file), sha256=sha256, rows=rows, told=state.tell(told), images=images)
    if wanted.id is not None:
        for _, doc_id in _ids(scanned, wanted.id, errors):
            state.ids.add(doc_id)
    state.unreadable += errors.rows(file.name, rows)
    # A row without a text may be one without an id: how many have neither is not known.
    return replace(scanned, unreadable=max(errors.by_setting.values(), default=0))


def _seen_kinds(name: str, state: _Scanned) -> set[str]:
    """The kinds of a kept column's values; those of Parquet numbers are looked at where the type depends on them."""
    unseen, kinds = state.kinds[name] & UNSEEN_KINDS, state.kinds[name] - UNSEEN_KINDS
    floats = bool({"floats", "whole", "float", "nan"} & state.kinds[name])
    decided = bool(kinds & {"text", "bool"})  # a column of text, whatever the numbers are
    if decided or not ("unsigned" in unseen or ("integers" in unseen and floats) or ("long" in kinds and unseen)):
        return kinds | {{"integers": "int", "floats": "float", "unsigned": "text"}[kind] for kind in unseen}
    for file in state.unseen[name]:
        with refusals(file), ExitStack() as stack:
            kinds |= number_kinds(open_parquet(file, stack), name)
    # A column of floats stays one of floats where none of them is there to be looked at.
    return kinds or {"float" if "floats" in unseen else "int"}


def _look_at_kept(files: Sequence[CorpusFile], names: Sequence[str], state: _Scanned) -> None:
    """Kept values of a few row groups of Parquet files, which are not read otherwise."""
    if not names:
        return
    for file, first, rows in _some_groups(files):
        rows = min(rows, _KEPT_GROUP_ROWS)
        state.looked_at += rows
        for row, record in enumerate(records_of(Slice(file, first, rows), Wanted(None, None, tuple(names))), first):
            for name, value in zip(names, record.keep, strict=True):
                state.check_kept(name, value, file, row)


def _ids(file: CorpusFile, column: str, errors: ErrorCounts | None = None) -> Iterator[tuple[int, str]]:
    """(row, id) of every row of a file; what is wrong with ids is counted."""
    whole = Slice(file, 0, file.rows, file.header, 0, file.marks[0] if file.marks else 0)
    for row, record in enumerate(records_of(whole, Wanted(None, column))):
        doc_id, error = document_id(record.id, column)
        if error and errors is not None:
            errors.add(row, error, "corpus.id")
        yield row, doc_id if doc_id is not None else row_id(file, row)


def _parquet_sample(files: Sequence[CorpusFile], state: _Scanned) -> list[_Sampled]:
    """Texts from a few row groups, evenly spaced over the Parquet files and within each group.

    What is no text there is counted, but for nulls that the file's statistics have told.
    """
    texts: list[_Sampled] = []
    text, column = state.wanted.text, state.wanted.image
    groups = _some_groups(files)
    for file, first, rows in groups:
        rows = min(rows, _SAMPLE_GROUP_ROWS if column is None else _SAMPLE_IMAGES)
        records = records_of(Slice(file, first, rows), Wanted(text, None, (), column, state.turns))
        step = -(-rows * len(groups) // SAMPLE_TEXTS)
        errors, looked_at = ErrorCounts(), 0
        for looked_at, record in enumerate(islice(records, 0, None, step), 1):
            if column is not None:
                image, error = document_image(record.image, column, file)
                state.image_bytes += len(image) if isinstance(image, bytes) else 0
                if error:
                    errors.add(first + (looked_at - 1) * step, error, "corpus.image")
            if text is None:
                texts.append(_sampled("", False))
                continue
            found, error = (document_turns if state.turns else document_text)(record.text, text)
            whole = record.text if found is None else found
            if isinstance(whole, str):
                texts.append(_sampled(whole, state.turns and found is not None))
            elif record.text is not None or file.name not in state.counted_nulls:
                errors.add(first + (looked_at - 1) * step, str(error), state.wanted.text_setting)
        state.unreadable += errors.rows(file.name, looked_at, sampled=True)
    return texts


def _some_groups(files: Sequence[CorpusFile]) -> list[tuple[CorpusFile, int, int]]:
    """(File, first row, rows) of a few row groups, evenly spaced over the Parquet files."""
    groups: list[tuple[CorpusFile, int, int]] = []
    for file in files:
        if file.format == "parquet":
            with refusals(file), ExitStack() as stack:
                groups += [(file, first, rows) for first, rows in parquet_groups(open_parquet(file, stack))]
    count = min(len(groups), _SAMPLE_ROW_GROUPS)
    return [groups[(2 * i + 1) * len(groups) // (2 * count)] for i in range(count)]
