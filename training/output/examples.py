"""Documents that show a feature: where it is strongest, some drawn from where it fires, some that speak against it.

The strongest alone flatter a feature: nearly every one looks like a concept in its three best documents. The drawn ones
show what it does as a rule, the counter-examples where it fires in another class than the one it speaks for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from training.documents.labels import StudyData

DOCUMENTS = 3  # of each kind
SNIPPET = 160  # characters: two terminal lines
DRAWN = 20_261_117  # fixed: a rerun draws the same documents


def examples_of(
    value: np.ndarray, fires: np.ndarray, data: StudyData, train: np.ndarray, toward: int
) -> dict[str, list[dict[str, Any]]]:
    """`documents` (strongest), `random` (drawn from the others where it fires), `counter` (strongest of other classes).

    Args:
        value: float [n], the pooled value in each training document.
        fires: bool [n], whether the method sees the feature there.
        data: The study's documents.
        train: int64 [n], the training documents among them.
        toward: The class that the feature speaks for.
    """
    order = np.argsort(-value, kind="stable")  # equal values in the order of the study's documents
    order = order[value[order] > 0]
    strongest = order[:DOCUMENTS]
    rest = np.setdiff1d(np.flatnonzero(fires & (value > 0)), strongest)
    drawn = np.random.default_rng(DRAWN).permutation(rest)[:DOCUMENTS]
    counter = order[data.y[train[order]] != toward][:DOCUMENTS]
    kinds = {"documents": strongest, "random": drawn, "counter": counter}
    return {kind: [_example(data, train[i], float(value[i])) for i in rows] for kind, rows in kinds.items()}


def _example(data: StudyData, row: int, value: float) -> dict[str, Any]:
    return {
        "doc_id": str(data.doc_id[row]),
        "label": data.classes[data.y[row]],
        "value": value,
        "text": snippet(data, row),
    }


def snippet(data: StudyData, row: int) -> str | None:
    """The beginning of a document's text, on one line; None where the text is unknown."""
    text = None if data.text is None else " ".join(data.text[row].split())
    return text if text is None or len(text) <= SNIPPET else f"{text[: SNIPPET - 1]}…"
