"""Draw a held-out share, or folds of equal size, from documents: stratified by class, with sampling units kept whole.

A sampling unit is what stays on one side: a group, a cluster of near-duplicates, a chain of both, or a single
document. scikit-learn's stratified draws come first. They count documents, or units as if all were of one size. Where
units are large, such a draw can miss the share or leave a class out. So each draw is checked, and where it is not
sound, the units are placed one by one (`placing`). That there are enough of them, `too_few_units` has checked.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from training.documents.labels import StudyData
from training.documents.placing import divide, far_off, tally, unit_counts


def hold_out(data: StudyData, share: float, folds: int, seed: int) -> np.ndarray:
    """Rows that are held out: about a share of the documents of each class; two units of each stratum are left.

    Args:
        data: The documents.
        share: Of the documents.
        folds: Inner folds that the others are to be divided into.
        seed: Of the draw.

    Returns:
        int64, rising.
    """
    counts, unit = _counts(data, np.arange(len(data.y)), data.strata)
    shared = 1 + len(data.classes)  # columns whose documents are to have the share
    own = np.asarray((counts > 0).sum(axis=0))
    # Held out: the share of a class' units, or one; left: one for each fold, as far as they reach.
    held = np.minimum(np.maximum(1, np.floor(share * own)), np.maximum(own - 2, 0))
    left = np.minimum(folds, own - held)
    held, left = np.minimum(held, 1), np.maximum(left, np.minimum(own, 2))
    held[shared:], left[shared:] = 0, np.minimum(own, 2)[shared:]
    need = np.stack([held, left]).astype(np.int64)

    test = _plain_share(data, share, seed)
    if test is not None:
        part = np.ones(counts.shape[0], dtype=np.int64)
        part[unit[test]] = 0
        have = tally(counts, part, 2)
        wanted = share * have.documents.sum(axis=0)
        if (have.units >= need).all() and not far_off(have.documents[0], wanted)[:shared].any():
            return test
    part = divide(counts, np.array([share, 1 - share]), need, np.random.default_rng([seed, 0]))
    return np.flatnonzero(part[unit] == 0)


def blocks(data: StudyData, rows: np.ndarray, n: int, seed: int, folds: int | None = None) -> list[np.ndarray]:
    """Some rows in n blocks, about equal in the documents of each class; a class that has n units is in every block.

    Args:
        data: The documents.
        rows: int64, rising.
        n: How many blocks.
        seed: Of the draw.
        folds: Of blocks that are held out in turn, the inner folds that the others are to be divided into.

    Returns:
        n arrays of rows, each rising.
    """
    counts, unit = _counts(data, rows, None if folds is None else data.strata)
    own = np.asarray((counts > 0).sum(axis=0))
    # In each block: one unit of every class, or so many that the other blocks together have one for each inner fold.
    each = np.maximum(1, np.minimum(1 if folds is None else -(-folds // (n - 1)), own // n))
    plain = _plain_blocks(data, rows, n, seed)
    if plain is not None:
        part = np.empty(counts.shape[0], dtype=np.int64)
        for b, block in enumerate(plain):
            part[unit[np.searchsorted(rows, block)]] = b
        have = tally(counts, part, n)
        there = (have.units >= each).sum(axis=0) >= np.minimum(n, own)
        off = far_off(have.documents, have.documents.sum(axis=0) / n)[:, : 1 + len(data.classes)]
        if there.all() and not (folds is not None and off.any()):
            return plain
    part = divide(counts, np.full(n, 1 / n), np.tile(each, (n, 1)), np.random.default_rng([seed, n]))
    return [rows[part[unit] == b] for b in range(n)]


def _counts(data: StudyData, rows: np.ndarray, strata: np.ndarray | None = None) -> tuple[Any, np.ndarray]:
    """(documents in all, of each class and each stratum in each unit: CSR [U, 1 + C + ...]; the unit of each row)."""
    from scipy.sparse import hstack

    unit = np.arange(len(rows)) if data.unit is None else np.unique(data.unit[rows], return_inverse=True)[1]
    codes = [np.zeros(len(data.y), dtype=np.int64), data.y, *([] if strata is None else [strata])]
    return hstack([unit_counts(code[rows], unit, int(code.max()) + 1) for code in codes], format="csr"), unit


def _plain_share(data: StudyData, share: float, seed: int) -> np.ndarray | None:
    """scikit-learn's draw of a share, rising; None where it refuses."""
    from sklearn.model_selection import StratifiedShuffleSplit

    rows = np.arange(len(data.y))
    if data.group is not None:
        # Groups of distinct sizes leave StratifiedGroupKFold little to shuffle: every seed takes another block, so
        # that seeds hold out different groups even then.
        parts = max(2, round(1 / share))
        found = _plain_blocks(data, rows, parts, seed)
        return None if found is None else found[seed % parts]
    first, of_row = _representatives(data, rows)
    draw = StratifiedShuffleSplit(n_splits=1, test_size=share, random_state=seed)
    try:
        _, chosen = next(draw.split(np.zeros(len(first)), data.y[first]))
    except ValueError:  # too few representatives of a class
        return None
    return rows[np.isin(of_row, chosen)]


def _plain_blocks(data: StudyData, rows: np.ndarray, n: int, seed: int) -> list[np.ndarray] | None:
    """scikit-learn's n blocks, each rising; None where it refuses."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of scarce classes: what is drawn is looked at
        try:
            if data.group is None:
                first, of_row = _representatives(data, rows)
                drawn = StratifiedKFold(n, shuffle=True, random_state=seed).split(np.zeros(len(first)), data.y[first])
                return [rows[np.isin(of_row, block)] for _, block in drawn]
            assert data.unit is not None
            grouped: Any = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
            return [rows[block] for _, block in grouped.split(np.zeros(len(rows)), data.y[rows], data.unit[rows])]
        except ValueError:  # too few documents or groups of a class
            return None


def _representatives(data: StudyData, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each cluster of near-duplicates among `rows`, and for each row the place of its cluster there.

    Clusters are drawn by their first document and the others follow: exact shares where there are no near-duplicates,
    and close to them where clusters are small, at the cost of a plain stratified draw.
    """
    if data.text_cluster is None:
        return rows, np.arange(len(rows))
    _, first, of_row = np.unique(data.text_cluster[rows], return_index=True, return_inverse=True)
    order = np.argsort(first)  # in the order of the rows, so that without near-duplicates nothing changes
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return rows[first[order]], place[of_row]
