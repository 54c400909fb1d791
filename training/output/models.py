"""A trained model as two plain files: numbers in safetensors, everything else in JSON. No pickle, no scikit-learn.

`NAME.json` says what to read from which kind of store, the classes, and how the model came about; `NAME.safetensors`
holds the features' columns, scales and weights (or a tree's nodes), and hashes of the training documents' ids.
`predict_store` classifies the documents of any store that `training.output.compatibility` lets pass, with numpy alone,
in bounded memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.base.json_text import json_text
from featurestore.errors import StudyError
from featurestore.format.rows import dense_to_numpy
from featurestore.reader import FeatureStore
from featurestore.storage.files import atomic_write, filesystem, reached, read_bytes, shown
from training.methods.features import Method, MethodMatrix
from training.output.compatibility import Caution, check_store
from training.output.explain import coefficients
from training.probes.estimators import log_proba, log_proba_ovr
from training.probes.fit import Final

if TYPE_CHECKING:
    from featurestore.format.store_plan import StorePlan

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
            absent (models of earlier versions): sorted, what `id_hashes` gives for the training documents.
    """

    header: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.header["classes"])


@dataclass(frozen=True)
class Predicted:
    """Some documents with their classes; a document without features has class -1 and NaN probabilities.

    `in_training` says which have the id of a training document; None if the model does not know.
    """

    doc_id: np.ndarray
    y_pred: np.ndarray
    proba: np.ndarray
    in_training: np.ndarray | None = None


def id_hashes(doc_id: Iterable[str]) -> np.ndarray:
    """uint64 of each id: the first eight bytes of the sha256 of its UTF-8, little-endian."""
    digests = (hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8] for name in doc_id)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def pack(
    method: Method,
    matrix: MethodMatrix,
    final: Final,
    about: Mapping[str, Any],
    trained_ids: Iterable[str] | None = None,
) -> Model:
    """A fitted method as plain data.

    Args:
        method: A method of SAE features or of a dense column.
        matrix: Its matrix.
        final: Its fitted model.
        about: Further keys of the header: classes, store, split, scores.
        trained_ids: Of the training documents; if not given, the model does not know them.
    """
    assert final.columns is not None
    kept, model = final.columns.kept, final.model
    columns = kept if matrix.column is None else matrix.column[kept]
    tensors = {"columns": columns.astype(np.int64), "scale": np.asarray(final.columns.scale, np.float64)}
    if trained_ids is not None:
        tensors["trained_ids"] = np.sort(id_hashes(trained_ids))
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
    atomic_write(fs, f"{root}.json", f"{json_text(dict(model.header), indent=2)}\n".encode())


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


def predict_store(model: Model, store: FeatureStore) -> Iterator[Predicted]:
    """Classify every document of a store, a row group at a time.

    Raises:
        StudyError: The store comes from another model or SAE, or lacks what the model reads.
    """
    check_model(model, store.plan, shown(store.uri))
    offset = 0
    empty = store.documents().select(["error", "n_tokens"]).collect()
    blank = (empty["error"].is_not_null() | (empty["n_tokens"] == 0)).to_numpy()
    for X, ids in _rows(model, store):
        scores = decide(model, X)
        nothing = blank[offset : offset + len(ids)]
        offset += len(ids)
        proba = np.where(nothing[:, None], np.nan, np.exp(scores))
        y_pred = np.where(nothing, -1, np.argmax(scores, axis=1))
        yield Predicted(np.asarray(ids, dtype=object), y_pred, proba, _in_training(model, ids))


def check_model(model: Model, plan: StorePlan, where: str) -> tuple[Caution, ...]:
    """What `training.output.compatibility.check_store` says of a model and a store, and whether the model fits its own
    SAEs."""
    found = check_store(model.header, plan, where)
    widths = {sae.name: sae.d_sae for sae in plan.schema.saes} | {dense.name: dense.dim for dense in plan.schema.dense}
    read = model.header["saes"] if model.header["dense"] is None else [model.header["dense"]]
    columns = model.tensors["columns"]
    if len(columns) and columns.max() >= sum(widths[name] for name in read):
        raise StudyError(f"{model.header['method']}: a column of the model lies outside its SAEs; train it again")
    return found


def _in_training(model: Model, ids: np.ndarray) -> np.ndarray | None:
    known = model.tensors.get("trained_ids")
    if known is None:
        return None
    hashes = id_hashes(ids)
    place = np.searchsorted(known, hashes)
    return np.append(known, np.uint64(0))[place] == hashes if len(known) else np.zeros(len(hashes), bool)


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
        dense = next(dense for dense in store.schema.dense if dense.name == header["dense"])
        for _, _, batch in store.groups(["doc_id", dense.name]):
            X = dense_to_numpy(dense, batch.column(dense.name)).astype(np.float64)
            yield np.nan_to_num(X)[:, columns], batch.column("doc_id").to_numpy(zero_copy_only=False)
        return
    threshold = header["binarize"] if isinstance(header["binarize"], float) else None
    streams = [store.batches(sae, header["pool"], threshold) for sae in header["saes"]]
    for pieces in zip(*streams, strict=True):
        X = pieces[0].X if len(pieces) == 1 else hstack([piece.X for piece in pieces], format="csr")
        yield X[:, columns].tocsr(), pieces[0].doc_id


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
    return None
