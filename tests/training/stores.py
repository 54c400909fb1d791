"""Real feature stores with a known truth: sparse random features, and a few planted ones that tell the classes apart.

Each document's content follows from its own number, so the same documents can be stored in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.format.schema import DenseColumn, SaeColumns, StoreSchema
from featurestore.writing.writer import PartRows, SparseColumn, StorePlan, create_store, finish_store, write_part

D_SAE, DIM, ACTIVE = 96, 12, 14
PLANTED = (17, 40, 71, 5)  # feature that fires for class 0, 1, ...
SAE = "l1_tiny"
HOOK = "resid_post_1"
POOLS = ("max", "sum", "count")


@dataclass
class Documents:
    """Documents before they are stored; change a column to spoil it."""

    ids: list[str]
    label: list[Any]
    group: list[Any]
    text: list[Any]
    features: list[dict[int, tuple[float, int]]]  # feature -> (max, count)
    hidden: np.ndarray
    n_tokens: list[int]
    error: list[str | None]
    label_type: str = "string"
    extra: dict[str, list[Any]] = field(default_factory=dict)
    extra_types: dict[str, str] = field(default_factory=dict)  # where they are no strings


def make_documents(
    n: int = 240,
    classes: Sequence[str] = ("ham", "spam"),
    strength: float = 0.8,
    seed: int = 0,
    groups: int | None = None,
    prefix: str = "doc",
) -> Documents:
    """Draw n documents.

    Args:
        n: How many; classes take turns.
        classes: Their names.
        strength: Share of a class' documents in which its planted feature fires (elsewhere 1 - strength).
        seed: Of everything random.
        groups: How many groups there are; documents of a group have one class. None: each document is its own group.
        prefix: Of the ids.
    """
    features, hidden, texts = [], np.zeros((n, DIM), np.float32), []
    group = [i if groups is None else i % groups for i in range(n)]
    y = [g % len(classes) for g in group]
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        active = {int(f) for f in rng.choice(D_SAE, ACTIVE, replace=False)} - set(PLANTED)
        for c in range(len(classes)):
            if rng.random() < (strength if c == y[i] else 1 - strength):
                active.add(PLANTED[c])
        features.append({f: (float(rng.gamma(2.0)) + 0.1, int(rng.integers(1, 5))) for f in sorted(active)})
        hidden[i] = rng.normal(size=DIM) + (strength - 0.5) * np.eye(DIM)[y[i]] * 2
        noise = [f"word{w}" for w in rng.integers(0, 40, 6)]
        texts.append(" ".join([*noise, f"hint{y[i]}" if rng.random() < strength else "nothing"]))
    return Documents(
        ids=[f"{prefix}-{i}" for i in range(n)],
        label=[classes[c] for c in y],
        group=[f"g{g}" for g in group],
        text=texts,
        features=features,
        hidden=hidden,
        n_tokens=[20] * n,
        error=[None] * n,
    )


def build_store(
    path: Path | str,
    documents: Documents,
    order: Sequence[int] | None = None,
    units: int = 3,
    keep_text: bool = True,
    saes: Sequence[str] = (SAE,),
) -> str:
    """Write the documents as a complete store, in this order, and return its path.

    A second SAE has the features of the first, counted from the other end.
    """
    n = len(documents.ids)
    order = list(range(n)) if order is None else list(order)
    keep = {"label": documents.label, "group": documents.group, **documents.extra}
    types = {"label": documents.label_type, "group": "string", **dict.fromkeys(documents.extra, "string")}
    types |= documents.extra_types
    if keep_text:
        keep["text"], types["text"] = documents.text, "string"
    schema = StoreSchema(
        keep=tuple(types.items()),
        saes=tuple(SaeColumns(name, D_SAE, POOLS) for name in saes),
        dense=tuple(DenseColumn(f"{HOOK}__hidden_{kind}", DIM) for kind in ("mean", "last")),
    )
    edges = np.linspace(0, n, units + 1).astype(int).tolist()
    bounds = list(pairwise(edges))
    spec = {"corpus": {"path": "corpus.jsonl", "text": "text"}}
    plan = StorePlan(schema, {"order": order[:3]}, spec, bounds, n, {})
    create_store(str(path), plan)
    records = []
    for unit, (start, stop) in enumerate(bounds):
        mine = order[start:stop]
        rows = PartRows(
            doc_id=[documents.ids[i] for i in mine],
            keep={name: [values[i] for i in mine] for name, values in keep.items()},
            n_tokens=np.array([documents.n_tokens[i] for i in mine], np.uint32),
            truncated=np.zeros(len(mine), bool),
            error=[documents.error[i] for i in mine],
            sparse={
                name: _sparse([documents.features[i] if k == 0 else _mirrored(documents.features[i]) for i in mine])
                for k, name in enumerate(saes)
            },
            dense={dense.name: documents.hidden[mine] for dense in schema.dense},
        )
        records.append(write_part(str(path), plan, unit, rows))
    finish_store(str(path), records)
    return str(path)


def _mirrored(row: dict[int, tuple[float, int]]) -> dict[int, tuple[float, int]]:
    return {D_SAE - 1 - f: row[f] for f in sorted(row, reverse=True)}


def _sparse(rows: list[dict[int, tuple[float, int]]]) -> SparseColumn:
    sizes = [len(row) for row in rows]
    peak = np.array([value for row in rows for value, _ in row.values()], np.float32)
    count = np.array([count for row in rows for _, count in row.values()], np.uint32)
    return SparseColumn(
        indptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        indices=np.array([f for row in rows for f in row], np.uint32),
        values={"max": peak, "sum": (peak * count).astype(np.float32), "count": count},
    )
