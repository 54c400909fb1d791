"""An open store at a glance, as a notebook or a prompt shows it: its size, SAEs, dense columns and first documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from featurestore.base.html import facts_html, table_html
from featurestore.base.number_words import counted
from featurestore.url_secrets import shown

if TYPE_CHECKING:
    import polars as pl

    from featurestore.format.schema import StoreSchema

ROWS = 5  # of documents: what a frame shows at its head


def one_line(uri: str, n: int, complete: bool, schema: StoreSchema) -> str:
    """The store in a line."""
    so_far = "" if complete else " so far"
    parts = [
        f"{counted(n, 'document')}{so_far}",
        *(f"{sae.name}: {sae.d_sae:,} by {', '.join(sae.pools)}" for sae in schema.saes),
        *(f"{dense.name}: {dense.dim:,}" for dense in schema.dense),
    ]
    return f"FeatureStore({shown(uri)!r}: {'; '.join(parts)})"


def page(uri: str, n: int, complete: bool, schema: StoreSchema, documents: pl.LazyFrame) -> str:
    """The same as HTML, with the first documents."""
    title = f"{shown(uri)}: {counted(n, 'document')}{'' if complete else ' so far (incomplete)'}"
    first = documents.head(ROWS).collect()
    return facts_html(title, _facts(schema)) + table_html(first.columns, first.rows())


def _facts(schema: StoreSchema) -> Iterator[tuple[str, str]]:
    for sae in schema.saes:
        yield "SAE", f"{sae.name}: {sae.d_sae:,} features, pooled by {', '.join(sae.pools)}"
    for dense in schema.dense:
        yield "dense", f"{dense.name}: {dense.dim:,} dimensions"
    yield "kept", ", ".join(f"{name} ({kind})" for name, kind in schema.keep) or "nothing"
