"""Fitted methods as model files: what scikit-learn learnt, as plain numbers that `featurestore.models` scores with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from featurestore.base.json_text import json_text
from featurestore.models.model import FORMAT, VERSION, Model, id_hashes
from featurestore.storage.files import atomic_write, filesystem
from training.methods.features import Method, MethodMatrix
from training.output.explain import PIECE, coefficients
from training.probes.fit import Final


def pack(
    method: Method,
    matrix: MethodMatrix,
    final: Final,
    about: Mapping[str, Any],
    trained_ids: Iterable[str] | None = None,
    document_frequency: np.ndarray | None = None,
) -> Model:
    """A fitted method as plain data.

    Args:
        method: A method of SAE features or of a dense column.
        matrix: Its matrix.
        final: Its fitted model.
        about: Further keys of the header: classes, store, split, scores.
        trained_ids: Of the training documents; if not given, the model does not know them.
        document_frequency: What `document_frequency` says of the training documents, against which drift is measured.
    """
    assert final.columns is not None
    kept, model = final.columns.kept, final.model
    columns = kept if matrix.column is None else matrix.column[kept]
    tensors = {"columns": columns.astype(np.int64), "scale": np.asarray(final.columns.scale, np.float64)}
    if trained_ids is not None:
        tensors["trained_ids"] = np.sort(id_hashes(trained_ids))
    if document_frequency is not None:
        tensors["document_frequency"] = np.asarray(document_frequency, np.float64)
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


def document_frequency(matrix: MethodMatrix, final: Final, rows: np.ndarray) -> np.ndarray:
    """Share of some documents in which each column that a model of SAE features reads is not zero, float64 [K]."""
    assert final.columns is not None
    counts = np.zeros(len(final.columns.kept))
    for start in range(0, len(rows), PIECE):  # so that a large matrix is never copied as a whole
        X = final.prepare.transform(matrix.X[rows[start : start + PIECE]].astype(np.float64))
        counts += np.asarray((X != 0).sum(axis=0)).ravel()
    return counts / len(rows)


def save_model(model: Model, path: str) -> None:
    """Write `path`.json and `path`.safetensors; the JSON file comes last, so that where it is, the other is whole."""
    from safetensors.numpy import save

    fs, root = filesystem(path)
    fs.create_dir(root.rsplit("/", 1)[0], recursive=True)
    atomic_write(fs, f"{root}.safetensors", save(dict(model.tensors)))
    atomic_write(fs, f"{root}.json", f"{json_text(dict(model.header), indent=2)}\n".encode())
