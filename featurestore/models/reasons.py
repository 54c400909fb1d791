"""Why a document was scored as it was: what each of its features adds to the class that came out.

Of a linear model that is weight times scaled value (with more than two classes: the class' weight less the mean of all
classes' weights), in units of log-odds; of a tree, what each node on the document's path does to the class' share. A
feature that does not fire adds nothing to a linear model, but it can send a document to one side of a tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.models.model import Model
from featurestore.models.scoring import scaled


@dataclass(frozen=True)
class Fired:
    """A token at which a feature fires: its text, where it is in the document (in code points), and the activation."""

    text: str
    start: int
    stop: int
    value: float


@dataclass(frozen=True)
class Reason:
    """One feature's part in one document's score.

    Attributes:
        sae: Name of its SAE in the model.
        feature: Its index.
        value: Its pooled value in the document.
        contribution: What it adds to the predicted class: above 0 it speaks for it, below 0 against it.
        tokens: Where it fires, the strongest first; None where only pooled values are known.
    """

    sae: str
    feature: int
    value: float
    contribution: float
    tokens: tuple[Fired, ...] | None = None


def reasons(model: Model, X: Any, y_pred: np.ndarray, k: int) -> list[tuple[Reason, ...]]:
    """Up to `k` features that speak for each document's class and up to `k` against it, the strongest first.

    Args:
        model: A model of SAE features.
        X: Sparse rows [n, columns of the model], pooled values as a store has them.
        y_pred: int64 [n], the class that came out; documents of class -1 get no reasons.
        k: How many in each direction.
    """
    names, sae, feature = model.places()
    values = X.tocsr()
    added = _of_tree(model, values, y_pred) if model.header["link"] == "tree" else _of_weights(model, values, y_pred)
    found: list[tuple[Reason, ...]] = []
    for row, label in enumerate(y_pred):
        columns, parts = added[row]
        if label < 0:
            columns, parts = columns[:0], parts[:0]
        # equal parts are ordered by column, so that the list is the same on every machine
        order = np.lexsort((columns, -np.abs(parts)))
        chosen = [i for sign in (1, -1) for i in [i for i in order if parts[i] * sign > 0][:k]]
        chosen.sort(key=lambda i: (-abs(parts[i]), columns[i]))
        here = dict(zip(*_row(values, row), strict=True))
        found.append(
            tuple(
                Reason(names[sae[c]], int(feature[c]), float(here.get(c, 0.0)), float(parts[i]))
                for i in chosen
                for c in [int(columns[i])]
            )
        )
    return found


def _row(X: Any, row: int) -> tuple[list[int], list[float]]:
    place = slice(X.indptr[row], X.indptr[row + 1])
    return X.indices[place].tolist(), X.data[place].tolist()


def _of_weights(model: Model, X: Any, y_pred: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(columns, contributions) of each row of a linear model."""
    coef = model.tensors["coef"]
    toward = np.vstack([-coef[0], coef[0]]) if len(coef) == 1 else coef - coef.mean(axis=0)
    X = scaled(model, X)
    rows = []
    for row, label in enumerate(y_pred):
        place = slice(X.indptr[row], X.indptr[row + 1])
        columns = X.indices[place]
        rows.append((columns, X.data[place] * toward[max(label, 0), columns]))
    return rows


def _of_tree(model: Model, X: Any, y_pred: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(columns, contributions) of each row of a tree: the change of the class' share at each node, summed by column."""
    tensors, values = model.tensors, scaled(model, X)
    rows = []
    for row, label in enumerate(y_pred):
        here = dict(zip(*_row(values, row), strict=True))
        added: dict[int, float] = {}
        node = 0
        while (left := int(tensors["left"][node])) >= 0:
            column = int(tensors["feature"][node])
            goes_left = np.float32(here.get(column, 0.0)) <= tensors["threshold"][node]
            child = left if goes_left else int(tensors["right"][node])
            change = tensors["value"][child, label] - tensors["value"][node, label]
            added[column] = added.get(column, 0.0) + float(change)
            node = child
        rows.append((np.array([*added], dtype=np.int64), np.array([*added.values()], dtype=np.float64)))
    return rows
