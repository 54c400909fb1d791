"""Open, decompress and hash a user's file, and hold one row of it as a record: what all formats share.

A record is one row as the file has it; whatever is wrong with the row is the record's `error`. A file that cannot be
read as a whole (gone, cut off inside its compression, of another format) raises `CorpusError` naming it. Splitting
bytes into rows is left to `json_and_csv` and `parquet`, and what the values mean to `values`.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, cast

from featurestore.base.did_you_mean import did_you_mean
from featurestore.errors import CorpusError
from featurestore.finding.files import SourceFile
from featurestore.storage.pointers import POINTER_BYTES, pointer_problem

BLOCK_BYTES = 4 << 20  # one request to an object store; larger blocks read no faster


class _Missing:
    """The value of a key that a JSON object does not have; None is a null that it does have."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


@dataclass(frozen=True)
class Unusable:
    """A value that nothing plain can stand for.

    Attributes:
        reason: Goes on from "the value of 'x'".
    """

    reason: str


@dataclass(frozen=True)
class Wanted:
    """The columns or keys to read; without `text`, `id` or `image` the records have None there.

    With `turns` the text is a list of turns, of which `values.document_turns` makes a text.
    """

    text: str | None
    id: str | None
    keep: tuple[str, ...] = ()
    image: str | None = None
    turns: bool = False

    @property
    def text_setting(self) -> str:
        """The key of JOB.yaml that names the column of texts."""
        return "corpus.messages" if self.turns else "corpus.text"

    def settings(self) -> dict[str, str]:
        """Column name -> the key of JOB.yaml that names it."""
        named = dict.fromkeys(self.keep, "corpus.keep")
        named |= {self.id: "corpus.id"} if self.id is not None else {}
        named |= {self.image: "corpus.image"} if self.image is not None else {}
        return named | ({self.text: self.text_setting} if self.text is not None else {})


class Record(NamedTuple):
    """One row as the file has it. Bytes as a value mean: not UTF-8; `Unusable` says itself why.

    Attributes:
        offset: Where the row starts, in bytes of the decompressed file (0 for Parquet).
        error: Why the row cannot be read at all; then the values are None.
        image: An image's encoded bytes, or as text the path of its file; None where none is wanted.
    """

    text: Any
    id: Any
    keep: tuple[Any, ...]
    offset: int
    error: str | None = None
    image: Any = None


class Digest:
    """A read-only stream that hashes what passes; `hexdigest()` reads the rest of the file first."""

    closed = False

    def __init__(self, raw: BinaryIO, progress: Callable[[int], None] | None = None) -> None:
        self._raw = raw
        self._sha256 = hashlib.sha256()
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self._sha256.update(data)
        if self._progress:
            self._progress(len(data))
        return data

    def readable(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def hexdigest(self) -> str:
        while self.read(BLOCK_BYTES):
            pass
        return self._sha256.hexdigest()


class Counted:
    """A read-only stream that counts the bytes that pass."""

    def __init__(self, stream: BinaryIO) -> None:
        self.count = 0
        self._stream = stream

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.count += len(data)
        return data


@contextmanager
def refusals(file: SourceFile) -> Iterator[None]:
    """Turns what libraries raise on an unreadable file into one sentence that names it."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise CorpusError(f"{file.uri} is gone; put it back or change corpus.path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise CorpusError(
            f"{file.uri} is no whole {file.compression} file ({exc}); fetch or compress it again"
        ) from None
    except (OSError, pa.ArrowException) as exc:
        reason = (str(exc).splitlines() or [type(exc).__name__])[0][:200].rstrip(".")
        kind = file.compression or {"parquet": "Parquet"}.get(file.format)
        if kind and not isinstance(exc, PermissionError):
            raise CorpusError(f"{file.uri} is no whole {kind} file ({reason}); fetch or write it again") from None
        raise CorpusError(f"{file.uri} cannot be read ({reason}); check it and your access to it") from None


def open_raw(file: SourceFile, stack: ExitStack) -> BinaryIO:
    """The bytes on disk, seekable.

    Raises:
        CorpusError: They are a pointer of Git LFS or git-annex.
    """
    from featurestore.storage.files import filesystem, is_local

    fs = filesystem(file.root)[0]
    raw = cast("BinaryIO", stack.enter_context(fs.open_input_file(file.path)))
    if is_local(fs) and (file.size or 0) <= POINTER_BYTES:
        if (problem := pointer_problem(raw.read(POINTER_BYTES))) is not None:
            raise CorpusError(f"{file.uri} {problem}")
        raw.seek(0)
    return raw


def decompressed(raw: BinaryIO | Digest, file: SourceFile, stack: ExitStack) -> BinaryIO:
    """The bytes of the text that `raw` holds, front to back."""
    import pyarrow as pa

    if file.compression == "gzip":
        return stack.enter_context(cast("BinaryIO", gzip.GzipFile(fileobj=cast("BinaryIO", raw))))
    if file.compression == "zstd":
        source = raw if isinstance(raw, pa.NativeFile) else pa.PythonFile(raw, mode="r")
        return cast("BinaryIO", stack.enter_context(pa.CompressedInputStream(source, "zstd")))
    return cast("BinaryIO", raw)


class _Head:
    """The first `size` bytes of a stream."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int) -> bytes:
        block = self._stream.read(min(size, self._left))
        self._left -= len(block)
        return block


def open_text(
    file: SourceFile,
    offset: int,
    end: int | None,
    stack: ExitStack,
    text: BinaryIO | None = None,
    on_block: Callable[[], None] | None = None,
) -> BinaryIO:
    """The decompressed bytes `[offset, end)`: a seek, or decompressing (not parsing) what lies before.

    Args:
        file: The file.
        offset: Where to begin.
        end: Where to end; None for the end of the file.
        stack: Closes what is opened.
        text: The whole text of a compressed file, where it is at hand.
        on_block: Called after each block of what lies before, which may take hours.
    """
    seekable = open_raw(file, stack) if file.compression is None else text
    if seekable is not None:
        seekable.seek(offset)
        stream = seekable
    else:
        stream = decompressed(open_raw(file, stack), file, stack)
        skip = offset
        while skip > 0 and (block := stream.read(min(skip, BLOCK_BYTES))):
            skip -= len(block)
            if on_block is not None:
                on_block()
    return stream if end is None else cast("BinaryIO", _Head(stream, end - offset))


def check_columns(file: SourceFile, names: tuple[str, ...] | list[str], wanted: Wanted) -> None:
    """Refuses a file that lacks a wanted column, or has it twice.

    Raises:
        CorpusError: One sentence naming file, column and the nearest one that there is.
    """
    for column, setting in wanted.settings().items():
        if (times := list(names).count(column)) > 1:
            raise CorpusError(f"{file.uri} has {times} columns named '{column}' ({setting}); rename all but one")
        if times == 0:
            hint = ""
            if file.dialect is not None and len(names) == 1:
                hint = f"; it is read as {file.dialect}: set corpus.csv if that is not how it is written"
            raise CorpusError(missing_column(file.uri, column, setting, [*names, *file.partitions]) + hint)


def missing_column(where: str, column: str, setting: str, names: list[str]) -> str:
    """The sentence for a column that is not there."""
    hint = did_you_mean(column, names) or f"; set {setting} to one that it has"
    shown = ", ".join(f"'{name}'" for name in names[:12]) + (", ..." if len(names) > 12 else "")
    return f"{where} has no column '{column}' ({setting}){hint} (columns: {shown or 'none'})"
