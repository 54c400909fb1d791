"""Select features while they stream by, for stores beyond memory (`screen` in STUDY.yaml); only those are kept.

The store is read twice, a row group at a time. The first pass sums every feature over each class of each inner fold of
each split. These sums give, for each set of rows that a probe will be fitted on, the `keep` features with the largest
class-mean difference, on the scale that the probe would see, among those that fire in `min_documents`. The second pass
keeps the columns that any of these sets selected, and each fit then selects its own `keep` best among them.

So the outcome is that of selecting from the whole matrix, which is never held. The sums take classes x features x folds
x splits x 8 bytes; the matrix takes what was selected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from training.documents.labels import StudyData
from training.documents.split import Split
from training.methods.matrices import MethodMatrix, positions
from training.methods.method import Method
from training.methods.transformers import class_gap, top_mask

if TYPE_CHECKING:
    from featurestore.reader import FeatureStore


def load_screened(
    store: FeatureStore, methods: Sequence[Method], data: StudyData, splits: Sequence[Split], keep: int
) -> MethodMatrix:
    """What `training.methods.matrices.load_pooled` reads, with the columns that pass for any split and any of the
    methods.

    Args:
        store: The store that the methods name.
        methods: Methods of one source, of SAE features; thresholds are fixed ones.
        data: The study's documents.
        splits: All splits; their training rows screen, no other.
        keep: Features that pass for one split.
    """
    method = methods[0]
    assert method.pool is not None
    passed, names, blocks = [], [], []
    for sae in method.saes:
        variants = sorted({(m.binarize, m.scale, m.min_documents) for m in methods}, key=repr)
        mine = _pass(store, sae, method, data, splits, variants, keep)
        blocks.append(store.take(data.doc_id, sae, method.pool, features=mine).X)
        passed.append(mine)
        names += [f"{sae}:{f}" for f in mine]
    offsets = np.cumsum([0, *(store.sae(sae).d_sae for sae in method.saes)])
    column = np.concatenate([mine + offset for mine, offset in zip(passed, offsets, strict=False)])
    if len(blocks) == 1:
        return MethodMatrix(blocks[0], column, np.array(names, dtype=object))
    from scipy.sparse import hstack

    return MethodMatrix(hstack(blocks, format="csr"), column, np.array(names, dtype=object))


def _pass(
    store: FeatureStore,
    sae: str,
    method: Method,
    data: StudyData,
    splits: Sequence[Split],
    variants: Sequence[tuple[Any, str, int]],
    keep: int,
) -> np.ndarray:
    """Columns that pass for any split and variant, rising."""
    n_classes, width = len(data.classes), store.sae(sae).d_sae
    folds = 1 + max(int(split.fold.max()) for split in splits)
    in_class = np.zeros((len(variants), len(splits), folds, n_classes, width))
    largest = np.zeros((len(variants), len(splits), folds, width))
    documents = np.zeros((len(variants), len(splits), folds, width), np.int32)
    for X, rows in _batches(store, sae, method, data):
        for v, (binarize, scale, _) in enumerate(variants):
            values = X.astype(np.float64)
            if isinstance(binarize, float):
                values.data = (values.data > binarize).astype(np.float64)
                values.eliminate_zeros()
            elif scale == "sqrt":
                values.data = np.sqrt(values.data)
            for s, split in enumerate(splits):
                y = split.labels(data.y)
                for k in range(folds):
                    here = np.flatnonzero(split.fold[rows] == k)
                    part = values[here]
                    member = np.zeros((n_classes, len(here)))
                    member[y[rows[here]], np.arange(len(here))] = 1.0
                    in_class[v, s, k] += member @ part
                    np.maximum.at(largest[v, s, k], part.indices, part.data)
                    documents[v, s, k] += np.bincount(part.indices, minlength=width).astype(np.int32)
    passed = np.zeros(width, bool)
    for s, split in enumerate(splits):
        y = split.labels(data.y)
        for fit in [split.train, *(fit for fit, _ in split.inner())]:
            used = np.unique(split.fold[fit])
            for v, (_, _, min_documents) in enumerate(variants):
                top = largest[v, s, used].max(axis=0)
                sums = in_class[v, s, used].sum(axis=0) / np.where(top > 0, top, 1.0)
                gap = class_gap(sums, np.bincount(y[fit], minlength=n_classes))
                fires = documents[v, s, used].sum(axis=0)
                # Where none fires often enough, the commonest pass, so that the fit can say how common they are.
                enough = fires >= max(min(min_documents, fires.max()), 1)
                passed |= top_mask(np.where(enough, gap, -np.inf), keep) & enough
    return np.flatnonzero(passed)


def _batches(store: FeatureStore, sae: str, method: Method, data: StudyData) -> Iterator[tuple[Any, np.ndarray]]:
    """(rows of a group that take part, their places among the study's documents)."""
    assert method.pool is not None
    at = data.position
    if method.store is not None:
        at = positions(store.documents().select("doc_id").collect()["doc_id"].to_list(), data.doc_id)
    place = np.full(len(store), -1, dtype=np.int64)
    place[at] = np.arange(len(at))
    start = 0
    for X, ids in store.batches(sae, method.pool):
        rows = place[start : start + len(ids)]
        start += len(ids)
        yield X[rows >= 0], rows[rows >= 0]
