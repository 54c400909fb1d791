"""Hold what the pass over a corpus found: files with their rows and sha256, column types, a sample, unusable rows.

Plain values, made by `scan` and used by everything that plans.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from featurestore.finding.files import SourceFile
from featurestore.tables.json_and_csv import Fused
from ray_jobs.corpus.unreadable_counts import UnreadableRows

MARK_ROWS = 512  # a byte offset is noted this often: 8 bytes a mark, and a slice parses at most 511 rows before its own


@dataclass(frozen=True)
class CorpusFile(SourceFile):
    """A file that was scanned.

    Attributes:
        sha256: Of its bytes on disk.
        rows: Documents in it.
        header: Column names of a CSV file, else empty.
        marks: Byte offsets, in the decompressed text, of the rows 0, MARK_ROWS, 2 * MARK_ROWS, ...; empty for Parquet.
        text_bytes: Length of what a compressed file decompresses to, else 0.
        unreadable: Rows that cannot be read, as far as the pass over the file tells.
        told: (kept column, value) where the file's path tells it and not the file.
        fused: Rows of a CSV file in which a quote may not be closed.
        images: Of a table with paths of images: sha256 of these paths and of what is in the files, in order.
    """

    sha256: str
    rows: int
    header: tuple[str, ...] = ()
    marks: array[int] = field(default_factory=lambda: array("q"), repr=False, compare=False)
    text_bytes: int = 0
    unreadable: int = 0
    told: tuple[tuple[str, str | None], ...] = ()
    fused: Fused = field(default_factory=Fused)
    images: str = ""


@dataclass(frozen=True)
class UnkeptValues:
    """Values of a kept column that no type can hold: null in the store, while their documents are extracted.

    Attributes:
        column: The column.
        count: How many of the values that were looked at.
        looked_at: Rows that were looked at: all of JSONL and CSV files, up to some thousand of the Parquet files.
        example: The first of them: file, row and what is wrong with the value.
    """

    column: str
    count: int
    looked_at: int
    example: str


@dataclass(frozen=True)
class CorpusScan:
    """What one pass over a corpus found.

    Attributes:
        files: In reading order; global row numbers run through them.
        rows: Documents in all files.
        keep_types: Kept column -> "string", "int64", "float64" or "bool", in the order of the job.
        sample: Some hundreds of texts, evenly spaced over the corpus, each cut at 100,000 characters; of a long
            conversation every turn is cut, in proportion.
        sample_times: How many times as long as what is kept of it each sampled text is.
        mean_text_bytes: Mean UTF-8 length of the sampled texts before cutting, with the bytes of images beside them.
        reached_twice: (name, the name that counts) of files and folders that links or other paths reach a second time.
        unkept: Kept columns with values that cannot be kept, in the order of the job.
        unreadable: Which rows cannot be read, by file and kind.
        images: Whether its documents are images; then `sample` has their prompts.
        classes: (kept column, names of its classes) where Parquet files have names for its numbers, each once.
    """

    files: tuple[CorpusFile, ...]
    rows: int
    keep_types: Mapping[str, str]
    sample: tuple[str, ...] = field(repr=False)
    sample_times: tuple[float, ...] = field(repr=False)
    mean_text_bytes: float
    reached_twice: tuple[tuple[str, str], ...] = ()
    unkept: tuple[UnkeptValues, ...] = ()
    unreadable: tuple[UnreadableRows, ...] = ()
    classes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    images: bool = False

    @cached_property
    def first_rows(self) -> tuple[int, ...]:
        """The global number of each file's first row."""
        return tuple(accumulate((file.rows for file in self.files[:-1]), initial=0))
