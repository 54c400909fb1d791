"""A store as large as one likes in minutes: random rows with the statistics of real ones, through the real writer.

Each document has one of TOPICS topics; a topic gives each feature a firing rate. Rates are log-normal over features, as
those of real SAEs are (a few fire nearly everywhere, most rarely), and topics shift them, so that classes can be told
apart and feature statistics are not all alike. Pooled values are log-normal with a scale for each feature. The same
arguments give the same store, whatever the number of processes.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from featurestore import PartRows, SaeColumns, SparseColumn, StorePlan, StoreSchema
from featurestore.writing.writer import PartRecord, create_store, finish_store, write_part

SAE = "l12_16k"
TOPICS = 16
CLASSES = 4  # topic modulo this is the label
SPREAD, SHIFT = 1.6, 0.7  # of the log of the rates: over features, and of a topic around that
_VALUES = 1 << 16  # log-normal values are drawn from a table of this many


def make_store(
    root: Path, documents: int, features: int, d_sae: int = 16_384, unit: int = 20_000, processes: int = 2
) -> None:
    """Write a complete store with one SAE, pooled by `max`, and a kept column `label`.

    Args:
        root: A directory that is not there yet.
        documents: Rows.
        features: Mean non-zeros a row.
        d_sae: Width of the SAE.
        unit: Documents a part.
        processes: Parts written at a time; each holds one part in memory (about 30 bytes a non-zero).
    """
    ends = [*range(unit, documents, unit), documents]
    units = list(zip([0, *ends[:-1]], ends, strict=True))
    schema = StoreSchema((("label", "string"),), (SaeColumns(SAE, d_sae, ("max",)),), ())
    identity = {"synthetic": [documents, features, d_sae]}
    plan = StorePlan(schema, identity, {}, units, documents, {})
    create_store(str(root), plan)
    write = partial(_write, str(root), plan, firing_thresholds(d_sae, features))
    with ProcessPoolExecutor(processes) as pool:
        finish_store(str(root), list(pool.map(write, range(len(units)))))


def firing_thresholds(d_sae: int, features: int) -> np.ndarray:
    """uint16 [TOPICS, d_sae]: a feature fires where 16 random bits are below its threshold."""
    rng = np.random.default_rng(0)
    rate = rng.lognormal(0.0, SPREAD, d_sae) * rng.lognormal(0.0, SHIFT, (TOPICS, d_sae))
    scale = np.full((TOPICS, 1), features / d_sae)
    for _ in range(50):  # capping at 0.98 takes rates away, the scale gives them back
        capped = np.minimum(rate * scale, 0.98)
        scale *= features / capped.sum(axis=1, keepdims=True)
    return (capped * 65_536).astype(np.uint16)


def random_part(thresholds: np.ndarray, start: int, stop: int) -> PartRows:
    """Documents start:stop."""
    rng = np.random.Generator(np.random.SFC64([start, stop]))
    n, d_sae = stop - start, thresholds.shape[1]
    topic = rng.integers(0, TOPICS, n)
    words = -(-d_sae // 4)
    rows = [
        np.flatnonzero(rng.bit_generator.random_raw(words).view(np.uint16)[:d_sae] < thresholds[t]).astype(np.uint32)
        for t in topic
    ]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    indices = np.concatenate(rows)
    scales = np.random.default_rng(1).lognormal(1.0, 0.8, d_sae).astype(np.float32)
    table = rng.lognormal(0.0, 0.6, _VALUES).astype(np.float32)
    values = table[rng.integers(0, _VALUES, len(indices), dtype=np.uint16)] * scales[indices]
    return PartRows(
        doc_id=[f"doc-{i:08d}" for i in range(start, stop)],
        keep={"label": [f"class {t % CLASSES}" for t in topic]},
        n_tokens=rng.integers(50, 1000, n).astype(np.uint32),
        truncated=np.zeros(n, dtype=bool),
        error=[None] * n,
        sparse={SAE: SparseColumn(indptr, indices, {"max": values})},
        dense={},
    )


def _write(root: str, plan: StorePlan, thresholds: np.ndarray, unit: int) -> PartRecord:
    return write_part(root, plan, unit, random_part(thresholds, *plan.units[unit]))
