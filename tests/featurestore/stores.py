"""Small stores with known contents, and how to spoil them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.base.poolings import is_count_pool
from featurestore.format.schema import DenseColumn, SaeColumns, StoreSchema
from featurestore.writing.writer import PartRows, SparseColumn, StorePlan, create_store, finish_store, write_part

POOLS = ("max", "sum", "count", "last", "top2")
SCHEMA = StoreSchema(
    keep=(("label", "string"), ("score", "float64"), ("group", "int64"), ("flag", "bool")),
    saes=(SaeColumns("l12_64", 64, POOLS), SaeColumns("l9_8", 8, ("sum",))),
    dense=(DenseColumn("resid_post_9__hidden_mean", 3),),
)


def random_rows(schema: StoreSchema, n: int, seed: int = 0, prefix: str = "doc") -> PartRows:
    """n valid documents; every seventh has an error, every fifth no tokens."""
    rng = np.random.default_rng([seed, n])
    error: list[str | None] = ["the line is broken" if i % 7 == 6 else None for i in range(n)]
    n_tokens = rng.integers(1, 50, n).astype(np.uint32)
    n_tokens[[i for i in range(n) if error[i] or i % 5 == 4]] = 0
    keep = {name: [_kept(kind, i) for i in range(n)] for name, kind in schema.keep}
    return PartRows(
        doc_id=[f"{prefix}-{i}" for i in range(n)],
        keep=keep,
        n_tokens=n_tokens,
        truncated=rng.random(n) < 0.2,
        error=error,
        sparse={sae.name: _sparse(sae, n_tokens, rng) for sae in schema.saes},
        dense={dense.name: rng.normal(size=(n, dense.dim)).astype(np.float32) for dense in schema.dense},
    )


def _kept(kind: str, i: int) -> Any:
    if i % 4 == 3:
        return None
    return {"string": f"größe {i % 3}", "float64": i / 8, "int64": -i, "bool": i % 2 == 0}[kind]


def _sparse(sae: SaeColumns, n_tokens: np.ndarray, rng: np.random.Generator) -> SparseColumn:
    width = min(sae.d_sae, 12)
    picks = [np.sort(rng.choice(sae.d_sae, rng.integers(0, width + 1), replace=False)) if n else [] for n in n_tokens]
    indptr = np.concatenate([[0], np.cumsum([len(pick) for pick in picks])]).astype(np.int64)
    of = np.repeat(n_tokens, np.diff(indptr))
    values: dict[str, np.ndarray] = {}
    for pool in sae.pools:
        if is_count_pool(pool):
            values[pool] = rng.integers(1 if pool == "count" else 0, of + 1).astype(np.uint32)
        else:
            values[pool] = (rng.gamma(1.0, 3.0, indptr[-1]) + 1e-3).astype(np.float32)
            if pool == "last":
                values[pool][::3] = 0
    return SparseColumn(indptr, np.concatenate([*picks, []]).astype(np.uint32), values)


def plan_of(sizes: Sequence[int], schema: StoreSchema = SCHEMA, **identity: Any) -> StorePlan:
    """A plan with units of these sizes."""
    ends = np.cumsum(sizes).tolist()
    units = list(zip([0, *ends[:-1]], ends, strict=True))
    return StorePlan(schema, {"bundle": "b" * 8, **identity}, {"store": "here"}, units, ends[-1], {"host": "test"})


def write_store(
    root: Path | str, sizes: Sequence[int] = (7, 5, 9), schema: StoreSchema = SCHEMA
) -> tuple[StorePlan, list[PartRows]]:
    """A complete store with random rows; the rows of each unit come back."""
    plan = plan_of(sizes, schema)
    parts = [random_rows(schema, size, seed=unit, prefix=f"u{unit}") for unit, size in enumerate(sizes)]
    create_store(str(root), plan)
    finish_store(str(root), [write_part(str(root), plan, unit, rows) for unit, rows in enumerate(parts)])
    return plan, parts


def edit_json(path: Path, **changes: Any) -> None:
    """Change top-level keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def with_sparse(rows: PartRows, sae: str, **changes: Any) -> PartRows:
    """The same rows with fields of one SparseColumn replaced."""
    return replace(rows, sparse={**rows.sparse, sae: replace(rows.sparse[sae], **changes)})
