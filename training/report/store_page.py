"""The page of a store: what it holds, of which documents, from which model, at what cost, and what fires most often.

One pass over each SAE's first pooling counts features; everything else comes from metadata and from records of runs.
Values of kept columns are shown where they repeat, as languages and labels do; free text never is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.base.number_words import size
from featurestore.format.provenance import bundle_sources
from featurestore.format.schema import SaeColumns
from featurestore.reader import FeatureStore
from featurestore.status import run_status
from featurestore.storage.files import shown
from training.report.elements.charts import bars
from training.report.elements.figures import percent, significant, whole
from training.report.elements.render import render
from training.report.records_kept import costs_section, sae_source

if TYPE_CHECKING:
    import polars as pl

COMMONEST = 15  # features of an SAE that a table shows
MOST_VALUES = 12  # of a kept column; one with more is shown as so many different ones
SHORT = 60  # characters of a value: labels are shorter, texts are longer
KINDS = 10  # of errors
SHARES = (0.0, 1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5, 0.9, 1.0)  # of documents: features differ by powers of ten


def store_report(uri: str, private: bool = False) -> bytes:
    """The report of a store, one HTML file.

    Args:
        uri: Its directory or URL; it may be incomplete.
        private: Whether values, ids and names of files stay out.

    Raises:
        StoreError: There is no store, or a part is damaged.
    """
    return render("store.html", store_page(uri, private))


def store_page(uri: str, private: bool = False) -> dict[str, Any]:
    """Everything that the template shows, as plain data and SVG."""
    store, now = FeatureStore.open(uri, partial=True), run_status(uri)
    frame = store.documents().collect()
    lengths = frame["n_tokens"].drop_nulls().to_numpy()
    name = shown(uri).rstrip("/").rsplit("/", 1)[-1]
    page = {
        "title": "A private store" if private else f"Store {name}",
        "name": "a private store" if private else name,
        "private": private,
        "complete": now.complete,
        "facts": [
            (whole(now.rows_done), "documents", "" if now.complete else f"of {now.rows:,} so far"),
            (whole(now.errors), "with an error", percent(now.errors / max(now.rows_done, 1))),
            (whole(now.tokens), "tokens", f"{now.tokens / max(now.rows_done, 1):,.0f} a document"),
            (whole(len(store.schema.saes)), "SAEs", f"{sum(sae.d_sae for sae in store.schema.saes):,} features"),
            (size(now.bytes), "on disk", f"{size(now.bytes / max(now.rows_done, 1))} a document"),
        ],
        "units": f"{now.units_done:,} of {now.units:,}",
        "truncated": whole(int(frame["truncated"].sum() or 0)),
        "empty": whole(int((frame["n_tokens"] == 0).sum() or 0)),
        "columns": [] if private else _columns(store, frame),
        "lengths": _lengths(lengths),
        "errors": [
            (kind.kind, whole(kind.documents), [] if private else [f"{i}: {said}" for i, said in kind.examples[:2]])
            for kind in now.error_kinds[:KINDS]
        ],
        "saes": [_sae(store, sae) for sae in store.schema.saes],
        "dense": [(dense.name, whole(dense.dim)) for dense in store.schema.dense],
        "costs": costs_section(uri),
        "provenance": _provenance(store, private),
    }
    return page | {
        "sections": [
            ("holds", "What it holds"),
            ("documents", "Documents"),
            *([("errors", "Errors")] if page["errors"] else []),
            ("features", "Features"),
            ("costs", "What it cost"),
            ("provenance", "Provenance"),
        ]
    }


def _columns(store: FeatureStore, frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Kept columns whose values repeat: each value with its number of documents."""
    import polars as pl

    found = []
    for name, kind in store.schema.keep:
        values = frame.select(pl.nth(frame.columns.index(name)).alias("value"))["value"]
        counts = values.cast(pl.String).value_counts(sort=True) if not values.dtype.is_nested() else None
        distinct = 0 if counts is None else len(counts)
        few = counts is not None and 0 < distinct <= MOST_VALUES
        rows = counts.rows() if few and counts is not None else []
        rows = sorted(rows, key=lambda row: (-row[1], str(row[0])))
        short = all(value is None or len(value) <= SHORT for value, _ in rows)
        found.append({
            "name": name,
            "kind": str(kind),
            "distinct": whole(distinct),
            "rows": [("(none)" if v is None else v, whole(n), percent(n / len(frame))) for v, n in rows if short],
        })  # fmt: skip
    return found


def _lengths(lengths: np.ndarray) -> dict[str, Any] | None:
    """A histogram of tokens a document, in bins that double."""
    if not len(lengths):
        return None
    edges = [0, 1]
    while edges[-1] <= lengths.max():
        edges.append(edges[-1] * 2)
    heights = np.histogram(lengths, edges)[0].tolist()
    labels = [f"{edge:,}" for edge in edges]
    quartiles = [whole(q) for q in np.quantile(lengths, [0.05, 0.5, 0.95])]
    says = (
        f"Tokens a document: half have {quartiles[1]} or fewer, 5% {quartiles[0]} or fewer, 5% {quartiles[2]} or more"
    )
    rows = [(f"{labels[i]} to {int(edges[i + 1]) - 1:,}", whole(n)) for i, n in enumerate(heights) if n]
    return {"svg": bars(heights, labels, "tokens", "documents", says), "rows": rows, "says": says}


def _sae(store: FeatureStore, sae: SaeColumns) -> dict[str, Any]:
    """How often its features fire, and which most."""
    found = store.statistics(sae.name, sae.pools[0])
    n = max(found.n_documents, 1)
    share = found.document_frequency / n
    order = np.argsort(-found.document_frequency, kind="stable")[:COMMONEST]
    heights = np.histogram(share[share > 0], SHARES)[0].tolist()
    labels = [percent(edge) if edge else "0" for edge in SHARES]
    dead = int((found.document_frequency == 0).sum())
    says = f"Features of {sae.name} by the share of documents in which they fire; {dead:,} never fire"
    return {
        "name": sae.name,
        "d_sae": whole(sae.d_sae),
        "pools": ", ".join(sae.pools),
        "pool": sae.pools[0],
        "dead": whole(dead),
        "everywhere": whole(int((share >= 0.95).sum())),
        "active": f"{found.document_frequency.sum() / n:,.0f}",
        "svg": bars(heights, labels, "share of documents", "features", says),
        "shares": [(f"{labels[i]} to {labels[i + 1]}", whole(h)) for i, h in enumerate(heights)],
        "commonest": [
            (f"{sae.name}:{f}", whole(found.document_frequency[f]), percent(share[f]),
             significant(float(found.total[f] / n)), significant(float(found.maximum[f])))
            for f in order.tolist() if found.document_frequency[f]
        ],
    }  # fmt: skip


def _provenance(store: FeatureStore, private: bool) -> dict[str, Any]:
    bundle = bundle_sources(store.plan)
    model: Mapping[str, Any] = bundle["model"]
    entries = [("store fingerprint", store.fingerprint)]
    entries += [("model", model["name"])] if model.get("name") and not private else []
    entries += [(f"model {key}", model[key]) for key in ("revision", "dtype") if model.get(key)]
    entries += [] if private else [("store", shown(store.uri))]
    corpus = store.plan.identity.get("corpus")
    files = corpus.get("files") if isinstance(corpus, Mapping) else None
    return {
        "entries": entries,
        "saes": [sae_source(str(name), sae, private) for name, sae in bundle["saes"].items()],
        "files": [
            ("a file of the corpus" if private else str(file.get("name", "")), str(file.get("sha256", "")))
            for file in (files if isinstance(files, list) else [])[:50]
            if isinstance(file, Mapping)
        ],
        "versions": [],
        "spec": "",
    }
