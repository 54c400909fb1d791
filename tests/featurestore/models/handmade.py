"""Models written by hand: plain numbers and the header that a study would have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from featurestore.models.model import FORMAT, VERSION, Model


def linear_model(
    columns: list[int],
    coef: np.ndarray,
    d_sae: Mapping[str, int],
    *,
    identity: Mapping[str, Any] | None = None,
    pool: str = "max",
    scale: str | None = None,
    **header: Any,
) -> Model:
    """A logistic model of the features of the SAEs in `d_sae`, scales 2 and intercepts of 0.25."""
    classes = ["ham", "spam"] if len(coef) == 1 else ["a", "b", "c"][: len(coef)]
    n = len(columns)
    tensors = {
        "columns": np.array(columns, dtype=np.int64),
        "scale": np.full(n, 2.0),
        "coef": np.asarray(coef, dtype=np.float64),
        "intercept": np.full(len(coef), 0.25),
    }
    return Model(_header(classes, "softmax", d_sae, identity, pool, scale) | header, tensors)


def tree_model(d_sae: Mapping[str, int]) -> Model:
    """One that asks for feature 3 (above 4?) and then feature 5 (above 1?); feature 7 is in no node."""
    tensors = {
        "columns": np.array([3, 5, 7]),
        "scale": np.full(3, 2.0),
        "left": np.array([1, -1, 3, -1, -1]),
        "right": np.array([2, -1, 4, -1, -1]),
        "feature": np.array([0, -2, 1, -2, -2]),
        "threshold": np.array([2.0, -2.0, 0.5, -2.0, -2.0]),
        "value": np.array([[0.5, 0.5], [0.9, 0.1], [0.25, 0.75], [0.4, 0.6], [0.1, 0.9]]),
    }
    return Model(_header(["ham", "spam"], "tree", d_sae, None, "max", None), tensors)


def _header(
    classes: list[str],
    link: str,
    d_sae: Mapping[str, int],
    identity: Mapping[str, Any] | None,
    pool: str,
    scale: str | None,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "method": "by hand",
        "kind": "sae",
        "saes": list(d_sae),
        "pool": pool,
        "binarize": None,
        "scale": scale,
        "dense": None,
        "probe": "logistic_l2",
        "link": link,
        "classes": classes,
        "trained_on": {"identity": dict(identity or {}), "d_sae": dict(d_sae)},
    }
