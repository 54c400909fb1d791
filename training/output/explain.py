"""Which features decide: for each class the heaviest of the headline's SAE method, what they fire on, and where not.

A feature weighs |coefficient x difference of class means|: how far it moves the decision between a typical document of
the class and a typical other one; in a tree, it weighs what its splits gain. Its share is of all features' weight.
Everything is computed from the training documents of one split; held-out documents appear neither in the fit nor among
the examples, only among the errors (`training.output.errors_made`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.documents.labels import StudyData
from training.documents.split import Split
from training.methods.matrices import MethodMatrix, derive, load_pooled
from training.methods.method import Method
from training.output.examples import examples_of
from training.probes.catalogue import parameter_of
from training.probes.fit import Final, fit_final
from training.probes.folds import Labelled
from training.probes.probe import FittedProbe
from training.results.factors import AGAINST_BASELINES
from training.results.records import MethodSummary
from training.scores.significance import Comparison
from training.scores.wilson import wilson

if TYPE_CHECKING:
    from featurestore.reader import FeatureStore

PER_CLASS = 10  # features kept for each class: what a page shows; a terminal shows five of them
MOST = 60  # in all, however many classes there are
PIECE = 50_000  # rows: some hundred megabytes
EVERYWHERE = 0.95  # share of the training documents from which a feature is said to fire on nearly all of them
FOLLOWS = 0.6  # rank correlation with the number of tokens from which a feature is said to follow length
TOGETHER = 0.9  # correlation of two features over documents from which they are said to be near-copies
MOST_COPIES = 5
CHANCE = 0.5  # AUROC


def fit_method(
    store: FeatureStore,
    method: Method,
    data: StudyData,
    split: Split,
    value: float | None,
    pooled: MethodMatrix | None = None,
    n_jobs: int = 1,
) -> tuple[MethodMatrix, MethodMatrix, Final]:
    """The final model of a method on the training rows of one split, with what it was made of.

    Args:
        pooled: What was read before, where it was screened.
        n_jobs: Threads; they change no bit.

    Returns:
        (what was read, the method's matrix, the fitted model); the last is what the study scored.
    """
    from threadpoolctl import threadpool_limits

    if pooled is None:
        pooled = load_pooled(store, method, data)
    matrix = derive(pooled, method)
    with threadpool_limits(1):
        of = Labelled(matrix.X, data.y, len(data.classes))
        return pooled, matrix, fit_final(method, of, split.train, value, n_jobs)


def explain(
    method: Method,
    data: StudyData,
    split: Split,
    value: float | None,
    pooled: MethodMatrix,
    matrix: MethodMatrix,
    final: Final,
    n_tokens: np.ndarray | None = None,
) -> dict[str, Any]:
    """Explain one SAE cell on the training rows of one split.

    Args:
        method: A method of SAE features.
        data: The study's documents.
        split: Its training rows are used, its test rows are not.
        value: The hyper-parameter chosen for the cell on this split.
        pooled, matrix, final: What `fit_method` returned.
        n_tokens: Of each document of the study [N]; None where nobody knows.

    Returns:
        Plain data: the cell, and `features`, heaviest first, the PER_CLASS heaviest of each class. Each has feature,
        name, toward (class), coefficient, weight, share (of the weight of all features), document_frequency (class ->
        share of its training documents with the feature) with document_counts (class -> [documents with it,
        documents]) and document_interval (class -> [low, high], Wilson, 95 %), flags (sentences), copies (near-copies:
        name, correlation), and three lists of training documents (doc_id, label, value, text): documents (the
        strongest), random (drawn from those where it fires), counter (the strongest of other classes).
    """
    assert matrix.column is not None and matrix.names is not None and final.columns is not None
    kept = final.columns.kept
    column, names = matrix.column[kept], matrix.names[kept]
    seen = _seen(matrix, final, data, split)
    weight, toward, coefficient = weights(seen.in_class, data.y[split.train], final.probe)
    heaviest = _heaviest(weight, toward, column, len(data.classes))
    scaled = _scaled(matrix, final, split.train, heaviest)
    copies = _copies(matrix, final, split.train, heaviest, scaled, seen)
    assert pooled.column is not None
    strength = _columns(pooled.X, split.train, np.searchsorted(pooled.column, column[heaviest]))
    y, features = data.y[split.train], []
    for k, j in enumerate(heaviest):
        fires = scaled[:, k] != 0
        lengths = None if n_tokens is None else n_tokens[split.train]
        feature = {
            "feature": int(str(names[j]).rsplit(":", 1)[1]),
            "name": str(names[j]),
            "toward": data.classes[toward[j]],
            "coefficient": float(coefficient[j]),
            "weight": float(weight[j]),
            "share": float(weight[j] / weight.sum()),
            **_fired_in(fires, y, data.classes),
            "flags": _flags(fires, strength[:, k], lengths),
            "copies": [{"name": str(names[i]), "correlation": r} for i, r in copies[k]],
            **examples_of(strength[:, k], fires, data, split.train, int(toward[j])),
        }
        features.append(feature)
    return {**_cell(method, value, split, data, weight), "features": features}


def _cell(method: Method, value: float | None, split: Split, data: StudyData, weight: np.ndarray) -> dict[str, Any]:
    """What is explained: the method, the hyper-parameter chosen, the training documents, and what weights mean."""
    return {
        "method": method.name,
        "sae": method.sae,
        "pool": method.pool,
        "binarize": method.binarize,
        "probe": method.probe,
        "parameter": parameter_of(method.probe),
        "value": value,
        "C": value if parameter_of(method.probe) == "C" else None,
        "seed": split.seed,
        "documents": len(split.train),
        "classes": list(data.classes),
        "deciding": int((weight > 0).sum()),
        "weight": "share of the tree's gain"
        if method.probe == "tree"
        else "|coefficient x difference of class means| of the scaled feature",
    }


def _fired_in(fires: np.ndarray, y: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """In how many documents of each class a feature fires (bool [n]), as a share, its interval, and counts."""
    there, size = np.bincount(y[fires], minlength=len(classes)), np.bincount(y, minlength=len(classes))
    return {
        "document_frequency": {c: float(there[i] / size[i]) for i, c in enumerate(classes)},
        "document_interval": {c: list(wilson(there[i], size[i])) for i, c in enumerate(classes)},
        "document_counts": {c: [int(there[i]), int(size[i])] for i, c in enumerate(classes)},
    }


def versus_majority(
    comparisons: Sequence[Comparison], selected: Mapping[str, MethodSummary], data: StudyData
) -> dict[str, Any] | None:
    """How the SAE features stand to always answering the commonest class; None where that was not compared.

    Answers drawn by lot have a higher macro F1 than the majority's, so to beat it takes an AUROC above chance, too.
    """
    found = next((c for c in comparisons if (c.question, c.b) == (AGAINST_BASELINES, "majority")), None)
    if found is None:
        return None
    area = selected["sae"].auroc
    return {
        "answer": data.classes[int(np.bincount(data.y).argmax())],
        "difference": asdict(found.difference),
        "macro_f1": [found.a_macro_f1, found.b_macro_f1],
        "p_adjusted": found.p_adjusted,
        "auroc": asdict(area),
        "beaten": found.shown and found.difference.value > 0 and not area.low <= CHANCE,
    }


@dataclass(frozen=True)
class _Seen:
    """Sums over the training rows, of K columns: by class [classes, K], of values and of squares [K]."""

    in_class: np.ndarray
    total: np.ndarray
    squares: np.ndarray


def _seen(matrix: MethodMatrix, final: Final, data: StudyData, split: Split) -> _Seen:
    n_classes = len(data.classes)
    in_class, squares = np.zeros((n_classes, 0)), np.zeros(0)
    for rows in _pieces(split.train):
        X = final.prepare.transform(matrix.X[rows].astype(np.float64)).tocsc()
        sums = np.stack([np.asarray(X[data.y[rows] == c].sum(axis=0)).ravel() for c in range(n_classes)])
        in_class = sums if not in_class.size else in_class + sums
        powers = np.asarray(X.multiply(X).sum(axis=0)).ravel()
        squares = powers if not squares.size else squares + powers
    return _Seen(in_class, in_class.sum(axis=0), squares)


def _heaviest(weight: np.ndarray, toward: np.ndarray, column: np.ndarray, n_classes: int) -> np.ndarray:
    """The PER_CLASS heaviest features of each class, heaviest first; equal weights in the order of the features."""
    order = np.lexsort((column, -weight))  # the same list on every machine
    order = order[weight[order] > 0]  # a feature that weighs nothing decides nothing
    rank = np.zeros(len(order), dtype=int)
    for c in range(n_classes):
        mine = toward[order] == c
        rank[mine] = np.arange(mine.sum())
    return order[rank < max(1, min(PER_CLASS, MOST // n_classes))][:MOST]


def _scaled(matrix: MethodMatrix, final: Final, train: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """float64 [training documents, K]: some columns as the probe sees them."""
    pieces = [final.prepare.transform(matrix.X[rows].astype(np.float64)).tocsc()[:, columns] for rows in _pieces(train)]
    return np.vstack([piece.toarray() for piece in pieces])


def _columns(X: Any, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """[rows, columns] of a sparse matrix, dense."""
    return np.vstack([X[piece][:, columns].toarray() for piece in _pieces(rows)])


def _copies(
    matrix: MethodMatrix, final: Final, train: np.ndarray, chosen: np.ndarray, scaled: np.ndarray, seen: _Seen
) -> list[list[tuple[int, float]]]:
    """For each chosen feature the others whose values over the training documents go with its own: (column, r)."""
    if not len(chosen):
        return []
    products = np.zeros((len(chosen), len(seen.total)))
    for start, rows in zip(range(0, len(train), PIECE), _pieces(train), strict=True):
        X = final.prepare.transform(matrix.X[rows].astype(np.float64))
        products += np.asarray((X.T @ scaled[start : start + len(rows)]).T)
    n = len(train)
    mean = seen.total / n
    spread = np.sqrt(np.maximum(seen.squares / n - mean**2, 0.0))
    spread[spread < 1e-12] = np.inf  # a constant goes with nothing
    r = (products / n - np.outer(mean[chosen], mean)) / np.outer(spread[chosen], spread)
    found = []
    for k, own in enumerate(chosen):
        near = np.flatnonzero(r[k] >= TOGETHER)
        near = near[near != own]
        near = near[np.lexsort((near, -r[k, near]))][:MOST_COPIES]
        found.append([(int(i), round(min(float(r[k, i]), 1.0), 3)) for i in near])
    return found


def _flags(fires: np.ndarray, value: np.ndarray, n_tokens: np.ndarray | None) -> list[str]:
    """What makes a feature a poor explanation: it says hardly more than that there is text, or how much."""
    from scipy.stats import rankdata

    said, share = [], float(fires.mean())
    if share >= EVERYWHERE:
        said.append(f"fires on {share:.0%} of the training documents, so that it fires says little")
    if n_tokens is not None and np.ptp(n_tokens) and np.ptp(value):
        r = float(np.corrcoef(rankdata(value), rankdata(n_tokens))[0, 1])
        if abs(r) >= FOLLOWS:
            said.append(f"follows the length of the text (rank correlation {r:.2f})")
    return said


def _pieces(rows: np.ndarray) -> list[np.ndarray]:
    """The rows some at a time, so that a large matrix is never copied as a whole."""
    return [rows[start : start + PIECE] for start in range(0, len(rows), PIECE)]


def weights(in_class: np.ndarray, y: np.ndarray, probe: FittedProbe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight [K], the class each feature points to [K], and its coefficient for that class [K].

    `in_class` [classes, K] holds the sums of the scaled features over the rows of each class.
    """
    n_classes = len(in_class)
    size = np.bincount(y, minlength=n_classes)[:, None]
    gap = in_class / size - (in_class.sum(axis=0) - in_class) / (len(y) - size)  # mean in the class - mean elsewhere
    coef = probe.coefficients()
    if coef is None:
        gain = probe.importance
        return gain, np.argmax(gap, axis=0), gain
    if n_classes == 2:  # one row of coefficients, for the second class
        toward = (coef[0] > 0).astype(np.int64)
        return np.abs(coef[0] * gap[1]), toward, np.abs(coef[0])
    # A class' own evidence: only positive coefficients speak for it.
    evidence = np.where(coef > 0, np.abs(coef * gap), 0.0)
    toward = np.argmax(evidence, axis=0)
    columns = np.arange(coef.shape[1])
    return evidence[toward, columns], toward, coef[toward, columns]
