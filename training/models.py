"""A trained model as two plain files: numbers in safetensors, everything else in JSON. No pickle, no scikit-learn.

`NAME.json` says what to read from which kind of store, the classes, and how the model came about; `NAME.safetensors`
holds the features' columns, scales and weights (or a tree's nodes). `predict_store` classifies the documents of any
store whose model and SAEs are those that the model was trained on, with numpy alone, in bounded memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import StudyError
from featurestore.files import atomic_write, filesystem, read_bytes, shown
from featurestore.reader import FeatureStore
from training.estimators import log_proba, log_proba_ovr
from training.explain import coefficients
from training.features import SPARSE, Method, MethodMatrix
from training.probes import Final

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
            left, right, feature [nodes], threshold [nodes], value [nodes, classes].
    """

    header: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.header["classes"])


@dataclass(frozen=True)
class Predicted:
    """Some documents with their classes; a document without features has class -1 and NaN probabilities."""

    doc_id: np.ndarray
    y_pred: np.ndarray
    proba: np.ndarray


def pack(method: Method, matrix: MethodMatrix, final: Final, about: Mapping[str, Any]) -> Model:
    """A fitted method as plain data.

    Args:
        method: A method of SAE features or of a dense column.
        matrix: Its matrix.
        final: Its fitted model.
        about: Further keys of the header: classes, store, split, scores.
    """
    assert final.columns is not None
    kept, model = final.columns.kept, final.model
    columns = kept if matrix.column is None else matrix.column[kept]
    tensors = {"columns": columns.astype(np.int64), "scale": np.asarray(final.columns.scale, np.float64)}
    if final.columns.shift is not None:
        tensors["shift"] = np.asarray(final.columns.shift, np.float64)[: len(kept)]
    if final.columns.threshold is not None:
        # A feature that never fired in training never fires: a threshold that no value reaches.
        tensors["binarize"] = np.nan_to_num(np.asarray(final.columns.threshold, np.float64), posinf=1e300)
    if method.probe == "tree":
        tree = model.tree_
        tensors |= {
            "left": tree.children_left.astype(np.int64),
            "right": tree.children_right.astype(np.int64),
            "feature": tree.feature.astype(np.int64),
            "threshold": tree.threshold.astype(np.float64),
            "value": tree.value[:, 0, :] / tree.value[:, 0, :].sum(axis=1, keepdims=True),
        }
        link = "tree"
    else:
        coef = coefficients(model, len(kept))
        assert coef is not None
        last = model.steps[-1][1] if hasattr(model, "steps") else model
        parts = getattr(last, "estimators_", [last])
        tensors |= {"coef": coef, "intercept": np.concatenate([np.ravel(part.intercept_) for part in parts])}
        link = "one_vs_rest" if len(parts) > 1 else ("margin" if method.probe == "linear_svm" else "softmax")
    header = {
        "format": FORMAT,
        "format_version": VERSION,
        "method": method.name,
        "kind": method.kind,
        "saes": [] if method.sae is None else method.sae.split("+"),
        "pool": method.pool,
        "binarize": method.binarize,
        "scale": method.scale,
        "dense": method.column,
        "probe": method.probe,
        "link": link,
        **about,
    }
    return Model(header, {name: np.ascontiguousarray(value) for name, value in tensors.items()})


def save_model(model: Model, path: str) -> None:
    """Write `path`.json and `path`.safetensors; the JSON file comes last, so that where it is, the other is whole."""
    from safetensors.numpy import save

    fs, root = filesystem(path)
    fs.create_dir(root.rsplit("/", 1)[0], recursive=True)
    atomic_write(fs, f"{root}.safetensors", save(dict(model.tensors)))
    text = json.dumps(dict(model.header), ensure_ascii=False, indent=2, allow_nan=False)
    atomic_write(fs, f"{root}.json", f"{text}\n".encode())


def load_model(path: str | Path) -> Model:
    """Open a model by its JSON file, its safetensors file, or their common name.

    Raises:
        StudyError: There is no such model, or a file does not hold what it should; nothing in it is ever executed.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    stem = str(path).removesuffix(".json").removesuffix(".safetensors")
    fs, root = filesystem(stem)
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


def predict_store(model: Model, store: FeatureStore) -> Iterator[Predicted]:
    """Classify every document of a store, a row group at a time.

    Raises:
        StudyError: The store comes from another model or SAE, or lacks what the model reads.
    """
    _check_store(model, store)
    offset = 0
    empty = store.documents().select(["error", "n_tokens"]).collect()
    blank = (empty["error"].is_not_null() | (empty["n_tokens"] == 0)).to_numpy()
    for X, ids in _rows(model, store):
        scores = decide(model, X)
        nothing = blank[offset : offset + len(ids)]
        offset += len(ids)
        proba = np.where(nothing[:, None], np.nan, np.exp(scores))
        yield Predicted(np.asarray(ids, dtype=object), np.where(nothing, -1, np.argmax(scores, axis=1)), proba)


def decide(model: Model, X: Any) -> np.ndarray:
    """Log-probabilities [n, classes] of rows X [n, columns of the model], pooled values as the store has them.

    A linear SVM's are the log-softmax of its margins: they rank documents and are no probabilities.
    """
    tensors, link = model.tensors, model.header["link"]
    dense = model.header["kind"] == "dense"
    if not dense and model.header["scale"] == "sqrt":
        X = X.sqrt()
    if "binarize" in tensors:
        X = X.copy()
        X.data = (X.data > tensors["binarize"][X.indices]).astype(np.float64)
    if dense:
        X = (X - tensors.get("shift", 0.0)) / tensors["scale"]
    else:
        X = X.tocsr().astype(np.float64)
        X.data = X.data / tensors["scale"][X.indices]
    if link == "tree":
        return _walk(tensors, X)
    decision = np.asarray(X @ tensors["coef"].T) + tensors["intercept"]
    if decision.shape[1] == 1:
        return log_proba(decision[:, 0])
    return log_proba_ovr(decision) if link == "one_vs_rest" else log_proba(decision)


def _walk(tensors: Mapping[str, np.ndarray], X: Any) -> np.ndarray:
    """Leaf of every row; values are compared in float32, as scikit-learn's trees do."""
    from scipy.sparse import issparse

    used, place = np.unique(np.maximum(tensors["feature"], 0), return_inverse=True)
    values = X[:, used]
    values = (values.toarray() if issparse(values) else values).astype(np.float32)
    node = np.zeros(X.shape[0], dtype=np.int64)
    rows = np.arange(X.shape[0])
    for _ in range(len(place)):  # no path is longer than there are nodes
        inner = tensors["left"][node] >= 0
        if not inner.any():
            break
        left = values[rows, place[node]] <= tensors["threshold"][node]
        node = np.where(inner, np.where(left, tensors["left"][node], tensors["right"][node]), node)
    with np.errstate(divide="ignore"):
        return np.log(tensors["value"][node])


def _rows(model: Model, store: FeatureStore) -> Iterator[tuple[Any, np.ndarray]]:
    """(the model's columns, ids) of every row group."""
    from scipy.sparse import hstack

    header, columns = model.header, model.tensors["columns"]
    if header["kind"] == "dense":
        X = store.dense(header["dense"]).astype(np.float64)
        yield np.nan_to_num(X)[:, columns], store.documents().select("doc_id").collect()["doc_id"].to_numpy()
        return
    threshold = header["binarize"] if isinstance(header["binarize"], float) else None
    streams = [store.batches(sae, header["pool"], threshold) for sae in header["saes"]]
    for pieces in zip(*streams, strict=True):
        X = pieces[0].X if len(pieces) == 1 else hstack([piece.X for piece in pieces], format="csr")
        yield X[:, columns].tocsr(), pieces[0].doc_id


def _check_store(model: Model, store: FeatureStore) -> None:
    theirs, ours = store.plan.identity, model.header["trained_on"]["identity"]
    for key in ("name", "tokens", "chat"):
        a, b = (side.get("model", {}).get(key) for side in (ours, theirs))
        if a != b:
            raise StudyError(f"{shown(store.uri)}: was made with model.{key} {b}, but this model was trained on {a}")
    if model.header["kind"] not in SPARSE:
        if model.header["dense"] not in store.dense_names:
            raise StudyError(f"{shown(store.uri)}: has no column '{model.header['dense']}'; extract again with it")
        return
    widths = 0
    for sae in model.header["saes"]:
        width = store.sae(sae).d_sae
        widths += width
        a, b = (side.get("saes", {}).get(sae) for side in (ours, theirs))
        if a != b or width != model.header["trained_on"]["d_sae"][sae]:
            raise StudyError(f"{shown(store.uri)}: its SAE '{sae}' is not the one that this model was trained on")
    if len(model.tensors["columns"]) and model.tensors["columns"].max() >= widths:
        raise StudyError(f"{model.header['method']}: a column of the model lies outside its SAEs; train it again")


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
    return None
