"""A trained model as two plain files: numbers in safetensors, everything else in JSON. No pickle, no scikit-learn.

`NAME.json` says what to read from which kind of store, the classes, and how the model came about; `NAME.safetensors`
holds the features' columns, scales and weights (or a tree's nodes), and hashes of the training documents' ids. Nothing
in either is believed before it is checked, and nothing is ever executed. Studies write them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import StudyError
from featurestore.models.deciding import calibration_problem, threshold_problem
from featurestore.storage.files import reached, read_bytes, shown

FORMAT, VERSION = "sparsemill.model", 1
LINKS = ("softmax", "one_vs_rest", "margin", "tree")
TENSORS = {
    "linear": ("columns", "scale", "coef", "intercept"),
    "tree": ("columns", "scale", "left", "right", "feature", "threshold", "value"),
}
MAX_BYTES = 1 << 32  # of either file: a linear model of a million features and a hundred classes has 0.8 GB


@dataclass(frozen=True)
class Model:
    """A model that can be applied.

    Attributes:
        header: What the JSON file holds.
        tensors: columns int64 [K] (of the features of all SAEs side by side, or of the dense column), scale [K], shift
            [K] or absent, binarize [K] (learnt thresholds) or absent; coef [classes or 1, K] and intercept, or a tree's
            left, right, feature [nodes], threshold [nodes], value [nodes, classes]; trained_ids uint64 [documents] or
            absent (models of earlier versions): sorted, what `id_hashes` gives for the training documents; and the
            arrays of a calibration (`featurestore.models.deciding.CALIBRATIONS`), where the header names one.
    """

    header: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.header["classes"])


def id_hashes(doc_id: Iterable[str]) -> np.ndarray:
    """uint64 of each id: the first eight bytes of the sha256 of its UTF-8, little-endian."""
    digests = (hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8] for name in doc_id)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def load_model(path: str | Path) -> Model:
    """Open a model by its JSON file, its safetensors file, or their common name.

    Raises:
        StudyError: There is no such model, or a file does not hold what it should; nothing in it is ever executed.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    stem = str(path).removesuffix(".json").removesuffix(".safetensors")
    fs, root = reached(stem)
    for ending in ("json", "safetensors"):
        info = fs.get_file_info(f"{root}.{ending}")
        if info.type.name != "File":
            raise StudyError(
                f"{shown(stem)}.{ending}: there is no such file; a model is NAME.json and NAME.safetensors"
            )
        if info.size > MAX_BYTES:
            raise StudyError(f"{shown(stem)}.{ending}: is too large to be a model; check the path")
    try:
        header = json.loads(read_bytes(fs, f"{root}.json"))
        tensors = load(read_bytes(fs, f"{root}.safetensors"))
    except (ValueError, SafetensorError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"{shown(stem)}: cannot be read as a model ({reason}); train it again") from None
    problem = _problem(header, tensors)
    if problem:
        raise StudyError(f"{shown(stem)}: is no model of this program ({problem}); give one that a study wrote")
    return Model(header, tensors)


def _problem(header: Any, tensors: Mapping[str, np.ndarray]) -> str | None:
    """Why the two files are no model, or None."""
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return "the JSON file does not say so"
    if header.get("format_version") != VERSION:
        return f"its version is {header.get('format_version')}, this program knows {VERSION}"
    needed = {"classes": list, "saes": list, "kind": str, "link": str, "trained_on": dict, "method": str}
    for key, kind in needed.items():
        if not isinstance(header.get(key), kind):
            return f"key '{key}' is missing or wrong"
    trained = header["trained_on"]
    if header["link"] not in LINKS or not isinstance(trained.get("identity"), dict):
        return "key 'link' or 'trained_on' is wrong"
    if header["kind"] != "dense" and not isinstance(trained.get("d_sae"), dict):
        return "key 'trained_on.d_sae' is missing"
    read, other = ("dense", "pool") if header["kind"] == "dense" else ("pool", "dense")
    if not isinstance(header.get(read), str) or header.get(other) is not None:
        return "key 'pool' or 'dense' is wrong"
    names = TENSORS["tree" if header["link"] == "tree" else "linear"]
    missing = [name for name in names if name not in tensors]
    if missing:
        return f"tensor '{missing[0]}' is missing"
    n, n_classes = len(tensors["columns"]), len(header["classes"])
    shapes: dict[str, tuple[int, ...]] = {"columns": (n,), "scale": (n,), "shift": (n,), "binarize": (n,)}
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
    known = tensors.get("trained_ids", np.empty(0, np.uint64))
    if known.dtype != np.uint64 or known.ndim != 1 or (known[1:] < known[:-1]).any():
        return "tensor 'trained_ids' is not sorted"
    if header["link"] == "tree":
        inner = tensors["left"] >= 0
        for name in ("left", "right", "feature"):
            limit = n if name == "feature" else len(tensors["left"])
            if (
                tensors[name].dtype.kind != "i"
                or (tensors[name][inner] >= limit).any()
                or (tensors[name][inner] < 0).any()
            ):
                return f"tensor '{name}' points outside the model"
    return threshold_problem(header) or calibration_problem(header, tensors)
