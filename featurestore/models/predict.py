"""Apply a trained model: classes and calibrated probabilities of the documents of a store, or of rows in memory.

Rows in memory take the way that they would take through a store (rounding included), so both give the same scores.
Memory is that of a row group, or of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import StudyError
from featurestore.format.rows import PartRows, dense_to_numpy, to_table
from featurestore.models.calibration import probabilities
from featurestore.models.compatibility import Caution, check_store
from featurestore.models.model import Model, id_hashes
from featurestore.models.reasons import Reason, reasons
from featurestore.models.scoring import decide
from featurestore.models.thresholds import decisions
from featurestore.reading.csr import rows_of_batch, to_csr
from featurestore.reading.selection import Selection
from featurestore.storage.files import shown

if TYPE_CHECKING:
    from featurestore.format.schema import StoreSchema
    from featurestore.format.store_plan import StorePlan
    from featurestore.reader import FeatureStore

EMPTY = "the document has no token"
CUT = "the document is longer than what is read of one; only its beginning was read"


@dataclass(frozen=True)
class Predicted:
    """Some documents (n) with their classes; a document without features has class -1 and NaN probabilities.

    Attributes:
        doc_id: n strings, object array.
        y_pred: The likeliest class of each, int64 [n].
        proba: float64 [n, classes].
        in_training: Which have the id of a training document, bool [n]; None if the model does not know.
        decided: The class by the model's operating point, int64 [n]; -1 where there are no features or people decide.
        problem: Why a document failed, that it is empty, or that only its beginning was read; n sentences or None.
        truncated: Of which only the beginning was read, bool [n].
        reasons: What decided each of them; None where it was not asked for.
        X: The model's columns of the documents, as a store has them.
        keep: Column -> values, of columns that were read along with the documents.
    """

    doc_id: np.ndarray
    y_pred: np.ndarray
    decided: np.ndarray
    proba: np.ndarray
    in_training: np.ndarray | None
    problem: Sequence[str | None]
    truncated: np.ndarray
    reasons: Sequence[tuple[Reason, ...]] | None = None
    X: Any = field(default=None, repr=False)
    keep: Mapping[str, Sequence[Any]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.doc_id)


def predict_store(model: Model, store: FeatureStore, explain: int = 0) -> Iterator[Predicted]:
    """Classify every document of a store, a row group at a time.

    Args:
        model: The model.
        store: The store.
        explain: Features to name in each direction.

    Raises:
        StudyError: The store comes from another model or SAE, or lacks what the model reads.
    """
    check_model(model, store.plan, shown(store.uri))
    about = store.documents().select(["error", "n_tokens", "truncated"]).collect()
    offset = 0
    for X, ids in _rows_of_store(model, store):
        here = about.slice(offset, len(ids))
        offset += len(ids)
        known = [here[name] for name in ("error", "n_tokens", "truncated")]
        yield _predicted(model, X, ids, known[0].to_list(), known[1].to_numpy(), known[2].to_numpy(), explain)


def predict_rows(model: Model, schema: StoreSchema, rows: PartRows, explain: int = 0) -> Predicted:
    """Classify documents that were just extracted; columns that they keep are handed on.

    Args:
        model: The model.
        schema: What a store of these rows would have, without kept columns; it says how values are rounded.
        rows: The documents.
        explain: Features to name in each direction.
    """
    table = to_table(schema, rows, 0, len(rows)).combine_chunks()
    (batch,) = table.to_batches() or [_no_rows(table)]
    header, columns = model.header, model.tensors["columns"]
    if header["kind"] == "dense":
        dense = next(dense for dense in schema.dense if dense.name == header["dense"])
        X = np.nan_to_num(dense_to_numpy(dense, batch.column(dense.name)).astype(np.float64))[:, columns]
    else:
        saes = {sae.name: sae for sae in schema.saes}
        chosen = [
            Selection.of(saes[n], header["pool"], _threshold(model), np.float32, None, None) for n in header["saes"]
        ]
        X = _side_by_side([to_csr(rows_of_batch(one, batch, None), one.n_columns) for one in chosen])[
            :, columns
        ].tocsr()
    ids = np.asarray(rows.doc_id, dtype=object)
    found = _predicted(model, X, ids, rows.error, rows.n_tokens, rows.truncated, explain)
    return replace(found, keep=rows.keep)


def check_model(model: Model, plan: StorePlan, where: str) -> tuple[Caution, ...]:
    """What `check_store` says of a model and a store, and whether the model fits its own SAEs."""
    found = check_store(model.header, plan, where)
    widths = {sae.name: sae.d_sae for sae in plan.schema.saes} | {dense.name: dense.dim for dense in plan.schema.dense}
    read = model.header["saes"] if model.header["dense"] is None else [model.header["dense"]]
    columns = model.tensors["columns"]
    if len(columns) and columns.max() >= sum(widths[name] for name in read):
        raise StudyError(f"{model.header['method']}: a column of the model lies outside its SAEs; train it again")
    return found


def _predicted(
    model: Model,
    X: Any,
    ids: np.ndarray,
    error: Sequence[str | None],
    n_tokens: np.ndarray,
    truncated: np.ndarray,
    explain: int,
) -> Predicted:
    scores = decide(model, X)
    nothing = np.array([e is not None for e in error], dtype=bool) | (np.asarray(n_tokens) == 0)
    y_pred = np.where(nothing, -1, np.argmax(scores, axis=1))
    return Predicted(
        doc_id=np.asarray(ids, dtype=object),
        y_pred=y_pred,
        decided=np.where(nothing, -1, decisions(model.header, scores)),
        proba=np.where(nothing[:, None], np.nan, probabilities(model, scores)),
        in_training=_in_training(model, ids),
        problem=problems(error, np.asarray(n_tokens) == 0, truncated),
        truncated=np.asarray(truncated, dtype=bool),
        reasons=reasons(model, X, y_pred, explain) if explain and model.header["kind"] != "dense" else None,
        X=X,
    )


def problems(
    error: Sequence[str | None], empty: Sequence[bool] | np.ndarray, truncated: Sequence[bool] | np.ndarray
) -> list[str | None]:
    """Why each document failed, that it is empty, or that only its beginning was read; None where nothing is wrong."""
    return [e or (EMPTY if no else CUT if cut else None) for e, no, cut in zip(error, empty, truncated, strict=True)]


def _in_training(model: Model, ids: np.ndarray) -> np.ndarray | None:
    known = model.tensors.get("trained_ids")
    if known is None:
        return None
    hashes = id_hashes(ids)
    place = np.searchsorted(known, hashes)
    return np.append(known, np.uint64(0))[place] == hashes if len(known) else np.zeros(len(hashes), bool)


def _rows_of_store(model: Model, store: FeatureStore) -> Iterator[tuple[Any, np.ndarray]]:
    """(the model's columns, ids) of every row group."""
    header, columns = model.header, model.tensors["columns"]
    if header["kind"] == "dense":
        dense = next(dense for dense in store.schema.dense if dense.name == header["dense"])
        for _, _, batch in store.groups(["doc_id", dense.name]):
            X = dense_to_numpy(dense, batch.column(dense.name)).astype(np.float64)
            yield np.nan_to_num(X)[:, columns], batch.column("doc_id").to_numpy(zero_copy_only=False)
        return
    streams = [store.batches(sae, header["pool"], _threshold(model)) for sae in header["saes"]]
    for pieces in zip(*streams, strict=True):
        yield _side_by_side([piece.X for piece in pieces])[:, columns].tocsr(), pieces[0].doc_id


def _threshold(model: Model) -> float | None:
    """Above which a value is 1; learnt thresholds are the model's own business."""
    return model.header["binarize"] if isinstance(model.header["binarize"], float) else None


def _side_by_side(pieces: Sequence[Any]) -> Any:
    from scipy.sparse import hstack

    return pieces[0] if len(pieces) == 1 else hstack(pieces, format="csr")


def _no_rows(table: Any) -> Any:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in table.schema], schema=table.schema)


def of_training(n: int, documents: int) -> str:
    """The warning that some of the documents of a prediction are training documents."""
    return (
        f"the ids of {n:,} of {documents:,} documents are those of training documents (in_training); "
        "how well these are classified says nothing about new ones"
    )
