"""The names of one SAE's features, read: a Parquet file in this machine's cache, called by the encoder's sha256.

The sha256 is the one that stores record (docs/store.md), so names follow an encoder into every store that it made,
whatever it is called there. The table keeps every name of every explainer; which of them is shown is decided when it is
asked for. A name is never shown without saying where it comes from. Writing is `merging`'s.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.base.hostile_text import visible
from featurestore.base.library_errors import brief
from featurestore.errors import NamesError
from featurestore.storage.cache import cache_path

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
SOURCES = ("imported", "generated", "evidence")
"""Where names come from, in the order in which they are shown where nothing else was asked for: people and large models
know more than small ones, and keywords explain nothing."""
KEYWORDS = "keywords"  # the explainer of names from evidence
SHOWN_CHARACTERS = 120  # of a name on a page; the table has all of it

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FeatureName:
    """A name of a feature.

    Attributes:
        feature: Its index, below d_sae.
        text: As it was imported or made, control characters and HTML included; `shown` is for people.
        source: One of SOURCES.
        explainer: Who or what wrote it: a model's name, "keywords", None where nobody says.
    """

    feature: int
    text: str
    source: str
    explainer: str | None

    def shown(self) -> str:
        """The name in one line, with its source: `names of dogs [imported, gpt-4o-mini]`; safe on a terminal."""
        source = ", ".join(_one_line(part) for part in (self.source, self.explainer) if part)
        return f"{_one_line(self.text)} [{source}]"


@dataclass(frozen=True, slots=True)
class NameRow(FeatureName):
    """A name with all that the table knows of it.

    Attributes:
        method: How the explainer was asked (Neuronpedia's `typeName`), None where nobody says.
        licence: Under which it may be passed on, None where nobody says.
        origin: The file or URL that it was read from, or the store whose documents it was made from.
    """

    method: str | None = None
    licence: str | None = None
    origin: str | None = None

    @property
    def key(self) -> tuple[int, str, str, str]:
        """What a table holds once: a later name of the same feature by the same explainer replaces the earlier."""
        return self.feature, self.source, self.explainer or "", self.method or ""


class NameTable:
    """All names of one encoder's features.

    Attributes:
        path: Its file, which need not be there.
        sha256, d_sae: Of the encoder.
        rows: By feature, the columns of `table_schema`; None where nothing was named yet.
        prefer: Explainers whose names come first.
    """

    def __init__(self, path: Path, sha256: str, d_sae: int, rows: pa.Table | None, prefer: tuple[str, ...]) -> None:
        """Use `open`."""
        self.path, self.sha256, self.d_sae, self.prefer = path, sha256, d_sae, prefer
        self.rows = rows

    @classmethod
    def open(cls, sha256: str, d_sae: int, directory: str | os.PathLike[str] | None = None) -> NameTable:
        """The table of an encoder, whether anything was named yet or not.

        Args:
            sha256: Of the encoder, 64 hex digits.
            d_sae: Its width.
            directory: Where tables lie; this machine's cache (`$SPARSEMILL_CACHE/names`) where None.

        Raises:
            NamesError: The sha256 is none, or the file there is damaged or of another width.
        """
        path = table_path(sha256, directory)
        if (file := next((parent for parent in path.parents if parent.is_file()), None)) is not None:
            raise NamesError(f"{file} is a file, and tables of names lie in a directory; give the path of one")
        if not path.exists():
            return cls(path, sha256.lower(), d_sae, None, ())
        rows, width, prefer = _read(path, sha256.lower())
        if width != d_sae:
            raise NamesError(
                f"{path}: names an SAE of {width:,} features, and this one has {d_sae:,}; "
                "check the width, or import the names of this SAE"
            )
        return cls(path, sha256.lower(), d_sae, rows, prefer)

    def __len__(self) -> int:
        """How many names there are, several of one feature counted each."""
        return 0 if self.rows is None else self.rows.num_rows

    def explainers(self) -> dict[tuple[str, str | None, str | None], int]:
        """(source, explainer, method) -> how many names; in the order of the table's columns."""
        if self.rows is None:
            return {}
        keys = ["source", "explainer", "method"]
        counts = self.rows.group_by(keys).aggregate([("feature", "count")]).to_pylist()
        found = {(row["source"], row["explainer"], row["method"]): int(row["feature_count"]) for row in counts}
        return dict(sorted(found.items(), key=lambda item: tuple(part or "" for part in item[0])))

    def names(self, features: Iterable[int] | None = None) -> Iterator[NameRow]:
        """Every name of these features (of all where None), by feature, the best first."""
        if self.rows is None:
            return
        rows = self.rows
        if features is not None:
            import pyarrow as pa
            import pyarrow.compute as pc

            asked = pa.array(sorted({feature for feature in features if 0 <= feature < self.d_sae}), pa.int64())
            rows = rows.filter(pc.is_in(rows["feature"], value_set=asked))
        found = [NameRow(**row) for batch in rows.to_batches() for row in batch.to_pylist()]
        yield from sorted(found, key=lambda row: (row.feature, self.rank(row, self.prefer)))

    def best(self, features: Iterable[int], prefer: Sequence[str] = ()) -> dict[int, FeatureName]:
        """One name for each of these features that has any.

        Args:
            features: Which; numbers beyond the width have no name.
            prefer: Explainers (or methods, or sources) whose names come first, the most wanted first; then follow those
                that the table was told to prefer, then imported names, generated ones and keywords.

        Returns:
            Feature -> its name.
        """
        order = (*prefer, *self.prefer)
        found: dict[int, NameRow] = {}
        for row in self.names(features):
            if row.feature not in found or self.rank(row, order) < self.rank(found[row.feature], order):
                found[row.feature] = row
        return {n: FeatureName(row.feature, row.text, row.source, row.explainer) for n, row in found.items()}

    def features(self) -> list[int]:
        """The features that have a name, in order."""
        return [] if self.rows is None else [int(feature) for feature in self.rows["feature"].unique().to_pylist()]

    @staticmethod
    def rank(row: NameRow, prefer: Sequence[str]) -> tuple[int, int, str, str]:
        """What names of a feature are ordered by, the best first; `prefer` as for `best`."""
        wanted = [at for at, name in enumerate(prefer) if name in (row.explainer, row.method, row.source)]
        return min(wanted, default=len(prefer)), SOURCES.index(row.source), row.explainer or "", row.method or ""


def table_path(sha256: str, directory: str | os.PathLike[str] | None = None) -> Path:
    """Where the table of an encoder lies, whether it is there or not.

    Raises:
        NamesError: The sha256 is none.
    """
    if not _SHA256.fullmatch(sha256.lower()):
        raise NamesError(
            f"{sha256!r} is no sha256 of an encoder; give its 64 hex digits, as `sparsemill prepare` prints"
        )
    return (cache_path("names") if directory is None else Path(directory)) / f"{sha256.lower()}.parquet"


def table_schema() -> pa.Schema:
    """The columns of a table's file."""
    import pyarrow as pa

    texts = [("text", False), ("source", False), ("explainer", True), ("method", True), ("licence", True)]
    return pa.schema(
        [
            pa.field("feature", pa.int64(), nullable=False),
            *(pa.field(name, pa.string(), nullable=nullable) for name, nullable in texts),
            pa.field("origin", pa.string()),
        ]
    )


def _read(path: Path, sha256: str) -> tuple[pa.Table, int, tuple[str, ...]]:
    """Rows, width and preferred explainers of a table's file."""
    import json

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            metadata = file.metadata.metadata or {}
            if metadata.get(b"sparsemill.names_version") != str(VERSION).encode():
                raise ValueError("it is no table of names of this version")
            if metadata.get(b"sparsemill.sha256") != sha256.encode():
                raise ValueError("it is the table of another SAE")
            if not file.schema_arrow.equals(table_schema()):
                raise ValueError("its columns are not those of a table of names")
            width = int(metadata[b"sparsemill.d_sae"])
            prefer = tuple(map(str, json.loads(metadata[b"sparsemill.prefer"])))
            rows = file.read()
        rows.validate(full=True)
        ends = pc.min_max(rows["feature"]).as_py()
        if rows.num_rows and not 0 <= ends["min"] <= ends["max"] < width:
            raise ValueError(f"it names features beyond its width of {width:,}")
        if not set(rows["source"].unique().to_pylist()) <= set(SOURCES):
            raise ValueError("it has names of an unknown source")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, pa.ArrowException) as exc:
        raise NamesError(
            f"{path}: cannot be read as a table of names ({brief(exc)}); move it away and import again"
        ) from exc
    return rows, width, prefer


def _one_line(text: str) -> str:
    """A text in one line, cut to what a page can show, characters that nobody sees spelled out."""
    line = " ".join(text[: SHOWN_CHARACTERS * 4].split())  # spaces may go
    cut = len(line) > SHOWN_CHARACTERS or len(text) > SHOWN_CHARACTERS * 4
    return visible(line[:SHOWN_CHARACTERS]) + ("..." if cut else "")
