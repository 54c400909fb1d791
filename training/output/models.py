"""Write fitted methods as model files, which `featurestore.models` reads and scores with.

`pack` puts the columns, scales and weights of a fitted method beside what the model was trained on; `save_model`
writes two files, without pickle. What a probe has learnt is plain numbers already (`FittedProbe`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from featurestore.base.json_text import json_text
from featurestore.models.model import FORMAT, VERSION, Model, id_hashes
from featurestore.storage.files import atomic_write, filesystem
from training.methods.matrices import MethodMatrix
from training.methods.method import Method
from training.output.explain import PIECE
from training.probes.fit import Final


def pack(
    method: Method,
    matrix: MethodMatrix,
    final: Final,
    about: Mapping[str, Any],
    trained_ids: Iterable[str] | None = None,
    calibration: Mapping[str, np.ndarray] | None = None,
    document_frequency: np.ndarray | None = None,
) -> Model:
    """A fitted method as plain data.

    Args:
        method: A method of SAE features or of a dense column.
        matrix: Its matrix.
        final: Its fitted model.
        about: Further keys of the header: classes, store, split, scores.
        trained_ids: Of the training documents; if not given, the model does not know them.
        calibration: Its arrays, see `featurestore.models.calibration`.
        document_frequency: What `document_frequency` says of the training documents, against which drift is measured.
    """
    assert final.columns is not None
    kept, probe = final.columns.kept, final.probe
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
    tensors |= {**probe.tensors, **(calibration or {})}
    header = {
        "format": FORMAT,
        "format_version": VERSION,
        "method": method.name,
        "kind": method.kind,
        "saes": list(method.saes),
        "pool": method.pool,
        "binarize": method.binarize,
        "scale": method.scale,
        "dense": method.column,
        "probe": method.probe,
        "class_weight": method.class_weight,
        "link": probe.link,
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


def remove_model(path: str) -> None:
    """Delete `path`.json and `path`.safetensors, the JSON file first, so that nobody takes half a model for one."""
    fs, root = filesystem(path)
    for name in (f"{root}.json", f"{root}.safetensors"):
        if fs.get_file_info(name).type.name == "File":
            fs.delete_file(name)
