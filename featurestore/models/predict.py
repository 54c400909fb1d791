"""Classify the documents of any store that `featurestore.models.compatibility` lets pass, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import StudyError
from featurestore.format.rows import dense_to_numpy
from featurestore.models.calibration import probabilities
from featurestore.models.compatibility import Caution, check_store
from featurestore.models.model import Model, id_hashes
from featurestore.models.scoring import decide
from featurestore.models.thresholds import decisions
from featurestore.storage.files import shown

if TYPE_CHECKING:
    from featurestore.format.store_plan import StorePlan
    from featurestore.reader import FeatureStore


@dataclass(frozen=True)
class Predicted:
    """Some documents (n) with their classes; a document without features has class -1 and NaN probabilities.

    Attributes:
        doc_id: n strings.
        y_pred: int64 [n], the likeliest class by the scores as they are.
        proba: float64 [n, classes], calibrated where the model says how.
        decided: int64 [n], the class by the model's operating point, -1 for undecided; without one the likeliest.
        in_training: Which have the id of a training document, bool [n]; None if the model does not know.
    """

    doc_id: np.ndarray
    y_pred: np.ndarray
    proba: np.ndarray
    decided: np.ndarray
    in_training: np.ndarray | None = None


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
        proba = np.where(nothing[:, None], np.nan, probabilities(model, scores))
        y_pred = np.where(nothing, -1, np.argmax(scores, axis=1))
        decided = np.where(nothing, -1, decisions(model.header, scores))
        yield Predicted(np.asarray(ids, dtype=object), y_pred, proba, decided, _in_training(model, ids))


def check_model(model: Model, plan: StorePlan, where: str) -> tuple[Caution, ...]:
    """What `check_store` says of a model and a store, and whether the model fits its own SAEs."""
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
