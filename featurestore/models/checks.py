"""Whether what two files hold is a model: nothing in them is believed before it has passed here.

Header and tensors are anybody's, so each key and each index that scoring relies on is looked at, and a tree is one that
every walk leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from featurestore.models.decision_checks import calibration_problem, threshold_problem

FORMAT, VERSION = "sparsemill.model", 1
LINKS = ("softmax", "one_vs_rest", "margin", "tree")
TENSORS = {
    "linear": ("columns", "scale", "coef", "intercept"),
    "tree": ("columns", "scale", "left", "right", "feature", "threshold", "value"),
}
COLUMNWISE = ("columns", "scale", "shift", "binarize", "document_frequency")  # tensors with a number for each column


def model_problem(header: Any, tensors: Mapping[str, np.ndarray]) -> str | None:
    """Why the contents of two files are no model, or None."""
    return (
        _header_problem(header)
        or _tensor_problem(header, tensors)
        or (_tree_problem(tensors) if header["link"] == "tree" else None)
        or threshold_problem(header)
        or calibration_problem(header, tensors)
    )


def _header_problem(header: Any) -> str | None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return "the JSON file does not say so"
    if header.get("format_version") != VERSION:
        return f"its version is {header.get('format_version')}, this program knows {VERSION}"
    needed = {"classes": list, "saes": list, "kind": str, "link": str, "trained_on": dict, "method": str}
    for key, kind in needed.items():
        if not isinstance(header.get(key), kind):
            return f"key '{key}' is missing or wrong"
    if len(header["classes"]) < 2 or not all(isinstance(name, str) for name in header["classes"]):
        return "key 'classes' is missing or wrong"
    trained = header["trained_on"]
    if header["link"] not in LINKS or not isinstance(trained.get("identity"), dict):
        return "key 'link' or 'trained_on' is wrong"
    read, other = ("dense", "pool") if header["kind"] == "dense" else ("pool", "dense")
    if not isinstance(header.get(read), str) or header.get(other) is not None:
        return "key 'pool' or 'dense' is wrong"
    if header["kind"] != "dense":
        widths = trained.get("d_sae")
        if not isinstance(widths, dict) or not header["saes"]:
            return "key 'trained_on.d_sae' is missing"
        if not all(isinstance(name, str) and _is_width(widths.get(name)) for name in header["saes"]):
            return "key 'trained_on.d_sae' is wrong"
    return None


def _is_width(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**32


def _tensor_problem(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str | None:
    missing = [name for name in TENSORS["tree" if header["link"] == "tree" else "linear"] if name not in tensors]
    if missing:
        return f"tensor '{missing[0]}' is missing"
    n, n_classes = len(tensors["columns"]), len(header["classes"])
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(COLUMNWISE, (n,))
    if header["link"] == "tree":
        nodes = len(tensors["left"])
        shapes |= dict.fromkeys(("left", "right", "feature", "threshold"), (nodes,))
        shapes["value"] = (nodes, n_classes)
    else:
        outputs = 1 if n_classes == 2 else n_classes
        shapes |= {"coef": (outputs, n), "intercept": (outputs,)}
    for name, shape in shapes.items():
        if name in tensors and tensors[name].shape != shape:
            return f"tensor '{name}' has shape {tensors[name].shape}, not {shape}"
    if not all(np.isfinite(value).all() for value in tensors.values() if value.dtype.kind == "f"):
        return "a weight is not finite"
    if n and (tensors["columns"].min() < 0 or tensors["columns"].dtype.kind != "i"):
        return "a column is negative"
    if header["kind"] != "dense" and n:
        width = sum(header["trained_on"]["d_sae"][name] for name in header["saes"])
        if tensors["columns"].max() >= width:
            return "a column lies outside its SAEs"
    known = tensors.get("trained_ids", np.empty(0, np.uint64))
    if known.dtype != np.uint64 or known.ndim != 1 or (known[1:] < known[:-1]).any():
        return "tensor 'trained_ids' is not sorted"
    return None


def _tree_problem(tensors: Mapping[str, np.ndarray]) -> str | None:
    """Nodes below a node come after it, as scikit-learn numbers them, so every walk ends."""
    inner = np.flatnonzero(tensors["left"] >= 0)
    for name in ("left", "right", "feature"):
        values, limit = tensors[name], len(tensors["columns"] if name == "feature" else tensors["left"])
        least = 0 if name == "feature" else inner + 1
        if values.dtype.kind != "i" or (values[inner] >= limit).any() or (values[inner] < least).any():
            return f"tensor '{name}' points outside the model"
    return None
