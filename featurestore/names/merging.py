"""Adding names to an encoder's table: a later name of the same explainer replaces the earlier, everything else stays.

The file is written anew and appears whole or not at all; two processes that add to one table take turns.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.base.json_text import json_text
from featurestore.errors import NamesError
from featurestore.names.table import VERSION, NameRow, NameTable, table_path, table_schema
from featurestore.storage.node_lock import node_lock

if TYPE_CHECKING:
    import pyarrow as pa

MOST_CHARACTERS = 10_000  # of a name; the longest explanations of large models have some hundred
_KEY = ["feature", "source", "explainer", "method"]


@dataclass(frozen=True)
class Kept:
    """What came of adding names.

    Attributes:
        path: The table's file.
        added: Names that are new.
        replaced: Names that took the place of an earlier one of the same feature by the same explainer.
        names: All that the table holds now.
        features: How many features have one.
    """

    path: Path
    added: int
    replaced: int
    names: int
    features: int


def keep_names(
    sha256: str,
    d_sae: int,
    rows: Iterable[NameRow],
    directory: str | os.PathLike[str] | None = None,
    prefer: Sequence[str] = (),
) -> Kept:
    """Add names to the table of an encoder.

    Args:
        sha256: Of the encoder.
        d_sae: Its width.
        rows: The names; of two with one key the later stays.
        directory: Where tables lie; this machine's cache where None.
        prefer: Explainers whose names come first from now on; those of the table stay where it is empty.

    Raises:
        NamesError: The table that is there is damaged or of another width, or it cannot be written; it stays as it is.
    """
    new = {row.key: row for row in rows}
    for row in new.values():
        if not 0 <= row.feature < d_sae or not row.text or len(row.text) > MOST_CHARACTERS:
            raise NamesError(
                f"feature {row.feature:,} cannot be named so: it needs 1 to {MOST_CHARACTERS:,} characters, and the "
                f"SAE has features 0 to {d_sae - 1:,}"
            )
    path = table_path(sha256, directory)
    with node_lock(path.with_name(f".{path.stem}.lock")):
        table = NameTable.open(sha256, d_sae, directory)
        merged = _merged(table, new.values())
        _write(path, sha256.lower(), d_sae, merged, tuple(prefer) or table.prefer)
    added = merged.num_rows - len(table)
    return Kept(path, added, len(new) - added, merged.num_rows, len(merged["feature"].unique()))


def _merged(table: NameTable, rows: Iterable[NameRow]) -> pa.Table:
    import polars as pl
    import pyarrow as pa

    new = pa.Table.from_pylist([asdict(row) for row in rows], schema=table_schema())
    frames = [pl.from_arrow(there) for there in (table.rows, new) if there is not None]
    whole = pl.concat([frame for frame in frames if isinstance(frame, pl.DataFrame)])
    latest = whole.unique(subset=_KEY, keep="last", maintain_order=True).sort(_KEY, nulls_last=False)
    return latest.to_arrow().select(table_schema().names).cast(table_schema())


def _write(path: Path, sha256: str, d_sae: int, rows: pa.Table, prefer: tuple[str, ...]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import fs as pafs

    from featurestore.storage.files import atomic_write

    metadata = {"names_version": str(VERSION), "sha256": sha256, "d_sae": str(d_sae), "prefer": json_text(prefer)}
    schema = rows.schema.with_metadata({f"sparsemill.{key}": value for key, value in metadata.items()})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(rows.cast(schema))
    try:
        atomic_write(pafs.LocalFileSystem(), str(path.absolute()), sink.getvalue())
    except OSError as exc:
        raise NamesError(f"{path}: cannot be written ({exc.strerror or exc}); check space and access") from exc
