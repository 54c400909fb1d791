"""Write the table of `sparsemill predict`: CSV, JSON lines or Parquet, by the ending of its name.

A row for each document, in the order given: `doc_id`, the columns that a store keeps, `prediction` (null where a
document has no features), one column for each class, `in_training`, `decision`, `error`, and `reasons` (JSON text)
where they were asked for. A class' column is `p_{class}`, its probability, or for a linear SVM, which has none,
`score_{class}`. Rows are written as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa

from featurestore.base.json_text import json_text
from featurestore.errors import UsageError
from featurestore.format.schema import KEEP_TYPES
from featurestore.models.calibration import are_probabilities
from featurestore.storage.files import shown
from featurestore.storage.user_outputs import check_free, whole_file
from featurestore.url_secrets import split_query

if TYPE_CHECKING:
    from featurestore.models.model import Model
    from featurestore.models.predict import Predicted
    from featurestore.models.reasons import Reason
    from featurestore.reader import FeatureStore

Write = Callable[[pa.Table], None]
Names = Mapping[tuple[str, int], Mapping[str, str | None]]
"""(SAE, feature) -> its name as `text`, `source` and `explainer`."""


def check_out(out: str, overwrite: bool) -> None:
    """Refuse a place where no table of predictions can be written, before anything is spent.

    Raises:
        UsageError: The ending is of no known kind, or something is there.
    """
    _writer_of(out)
    check_free(out, overwrite=overwrite)


class PredictionTable:
    """Rows of predictions, made from what `featurestore.models.predict` gives.

    Args:
        model: The model.
        store: The store whose documents it classifies; None where they are in none.
        explain: Whether rows have reasons.
        names: Of the features in them.

    Attributes:
        schema: The columns.
    """

    def __init__(
        self, model: Model, store: FeatureStore | None = None, explain: bool = False, names: Names | None = None
    ) -> None:
        self._classes, self._names = model.classes, names or {}
        self._explain = explain
        keep = () if store is None else store.schema.keep
        scores = [f"{score_prefix(model)}{name}" for name in model.classes]
        own = {"doc_id", "prediction", "in_training", "decision", "error", "reasons", *scores}
        self._kept: dict[str, str] = {}  # name in the store -> name here
        for name, _ in keep:
            here = name
            while here in own:
                here = f"kept_{here}"
            own.add(here)
            self._kept[name] = here
        self.schema = pa.schema(
            [
                ("doc_id", pa.string()),
                *((self._kept[name], KEEP_TYPES[kind]) for name, kind in keep),
                ("prediction", pa.string()),
                *((name, pa.float64()) for name in scores),
                ("in_training", pa.bool_()),
                ("decision", pa.string()),
                ("error", pa.string()),
                *((("reasons", pa.string()),) if explain else ()),
            ]
        )
        self._rows = None if store is None else RowReader(store, ["doc_id", *self._kept])

    def rows(self, batch: Predicted, decision: Sequence[str], problem: Sequence[str | None]) -> pa.Table:
        """The next rows, with the columns that the store keeps of them.

        Args:
            batch: What was predicted.
            decision: What was decided of each.
            problem: Why something else than its class was.
        """
        kept = {} if self._rows is None else self._rows.take(len(batch.doc_id))
        nothing = batch.y_pred < 0
        names = np.array([*self._classes, None], dtype=object)
        known = batch.in_training
        columns = [
            pa.array(batch.doc_id, pa.string()),
            *(kept[name] for name in self._kept),
            pa.array(names[batch.y_pred], pa.string()),
            *(pa.array(batch.proba[:, c], pa.float64(), mask=nothing) for c in range(len(self._classes))),
            pa.nulls(len(nothing), pa.bool_()) if known is None else pa.array(known, pa.bool_()),
            pa.array(decision, pa.string()),
            pa.array([text and _printable(text) for text in problem], pa.string()),
        ]
        if self._explain:
            listed = batch.reasons or [()] * len(nothing)
            columns.append(
                pa.array([json_text([reason_row(r, self._names) for r in each]) for each in listed], pa.string())
            )
        return pa.table(columns, schema=self.schema)


def kept_predictions(model: Model, store: FeatureStore, keep: Sequence[str]) -> Iterator[tuple[Predicted, list[str]]]:
    """The predictions that stand in parts, as they were made but without features, and what was decided.

    Args:
        model: The model that made them.
        store: The directory of parts.
        keep: Further columns to read.
    """
    from featurestore.models.predict import Predicted, problems

    scores = [f"{score_prefix(model)}{name}" for name in model.classes]
    place = {name: c for c, name in enumerate(model.classes)}
    columns = ["doc_id", "truncated", "prediction", *scores, "in_training", "decision", "error", *keep]
    for _, _, batch in store.groups(list(dict.fromkeys(columns))):
        known = batch.column("in_training").to_numpy(zero_copy_only=False)
        decisions = batch.column("decision").to_pylist()
        prediction = batch.column("prediction").to_pylist()
        truncated = batch.column("truncated").to_numpy(zero_copy_only=False)
        failed = batch.column("error").to_pylist()
        yield (
            Predicted(
                doc_id=batch.column("doc_id").to_numpy(zero_copy_only=False),
                y_pred=np.array([place.get(name, -1) for name in prediction], np.int64),
                decided=np.array([place.get(name, -1) for name in decisions], np.int64),
                proba=np.column_stack([batch.column(name).to_numpy(zero_copy_only=False) for name in scores]),
                in_training=None if batch.column("in_training").null_count else known.astype(bool),
                problem=problems(failed, [name is None for name in prediction], truncated),
                truncated=truncated,
                keep={name: batch.column(name).to_pylist() for name in keep},
            ),
            decisions,
        )


def json_row(
    classes: Sequence[str], batch: Predicted, i: int, decision: str, problem: str | None, names: Names
) -> dict[str, Any]:
    """One document as JSON has it; `prediction` is the class under its earlier name."""
    c = int(batch.y_pred[i])
    proba = [None if c < 0 else p for p in batch.proba[i].tolist()]
    name = None if c < 0 else classes[c]
    return {
        "doc_id": str(batch.doc_id[i]),
        "class": name,
        "prediction": name,
        "probabilities": dict(zip(classes, proba, strict=True)),
        "decision": decision,
        "error": problem,
        "in_training": None if batch.in_training is None else bool(batch.in_training[i]),
        "reasons": None if batch.reasons is None else [reason_row(reason, names) for reason in batch.reasons[i]],
    }


def reason_row(reason: Reason, names: Names) -> dict[str, Any]:
    """A reason as JSON has it."""
    tokens = None if reason.tokens is None else [asdict(token) for token in reason.tokens]
    return {**asdict(reason), "tokens": tokens, "name": names.get((reason.sae, reason.feature))}


def _printable(text: str) -> str:
    """An error may quote what no encoding holds."""
    return text.encode("utf-8", "replace").decode("utf-8")


def score_prefix(model: Model) -> str:
    """What the names of the classes' columns begin with."""
    return "p_" if are_probabilities(model) else "score_"


@contextmanager
def open_table(out: str, schema: pa.Schema) -> Iterator[Write]:
    """A table to be filled, which appears at `out` when the block ends without an error.

    Raises:
        UsageError: It cannot be written there.
    """
    with whole_file(out) as file, _writer_of(out)(file, schema) as write:
        yield write


class RowReader:
    """Some columns of a store's documents, so many rows at a time."""

    def __init__(self, store: FeatureStore, columns: list[str]) -> None:
        self._batches = (batch.select(columns) for _, _, batch in store.groups(columns))
        self._left: pa.RecordBatch | None = None

    def take(self, n: int) -> pa.Table:
        """The next `n` rows, of which there are that many."""
        pieces = []
        while n:
            batch = next(self._batches) if self._left is None else self._left
            pieces.append(batch.slice(0, n))
            self._left = batch.slice(n) if n < batch.num_rows else None
            n -= pieces[-1].num_rows
        return pa.Table.from_batches(pieces)


@contextmanager
def _csv(file: BinaryIO, schema: pa.Schema) -> Iterator[Write]:
    from pyarrow.csv import CSVWriter

    with CSVWriter(file, schema) as writer:
        yield writer.write_table


@contextmanager
def _parquet(file: BinaryIO, schema: pa.Schema) -> Iterator[Write]:
    from pyarrow.parquet import ParquetWriter

    with ParquetWriter(file, schema, compression="zstd") as writer:
        yield writer.write_table


@contextmanager
def _jsonl(file: BinaryIO, _schema: pa.Schema) -> Iterator[Write]:
    def write(table: pa.Table) -> None:
        for row in table.to_pylist():
            file.write(f"{json_text(row)}\n".encode())

    yield write


WRITERS: dict[str, Any] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def _writer_of(out: str) -> Any:
    name = split_query(out)[0].lower()
    for ending, writer in WRITERS.items():
        if name.endswith(ending):
            return writer
    raise UsageError(f"{shown(out)}: a table of predictions is one of {', '.join(WRITERS)}; give it such an ending")
