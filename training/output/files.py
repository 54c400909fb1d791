"""The files of a study: results, predictions, split and explanation, each written whole or not at all.

Nothing in them tells time, process count or the order of the store's rows, so a rerun writes the same bytes. What the
same study wrote before is replaced, never appended to; `training.output.directory` keeps others' results from being so.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.base.json_text import json_text
from featurestore.models.calibration import calibrated
from featurestore.models.thresholds import decide_by
from featurestore.storage.files import atomic_write, filesystem
from training.output.decided_plain import classes_plain, decided_plain
from training.output.directory import SPLIT, unwritable
from training.results.added_value import what_is_added
from training.results.decided import class_of
from training.results.records import Decided, FoldRow, MethodRow, MethodSummary, SliceSummary, StudyResult
from training.results.selection import representative
from training.results.tested import warn_of_test_sets
from training.scores.bootstrap import BOOTSTRAP_SEED, LEVEL
from training.scores.metrics import METRICS, Prediction
from training.scores.operating_words import interval_plain, measured_plain
from training.scores.significance import Comparison

FORMAT_VERSION = 1
LIBRARIES = ("numpy", "scipy", "scikit-learn", "pyarrow", "polars", "joblib")  # those that can move a number
_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}


def write_study(result: StudyResult) -> dict[str, str]:
    """Write every file of a study into `result.spec.out`, but for its split, which is there.

    Returns:
        Name of each file (without ending) -> its path. results.json comes last: where it is, the others are whole.

    Raises:
        StudyError: The directory cannot be written.
    """
    out = result.spec.out
    fs, root = filesystem(out)
    files: dict[str, Any] = {
        "predictions.parquet": _parquet(_predictions(result)),
        "folds.parquet": _parquet(_folds(result)),
        "regimes.parquet": _parquet(_rows(result.regime_rows)),
        "slices.parquet": _parquet(_slices(result)),
        "results.parquet": _parquet(_rows(result.rows)),
        "explanation.json": _json(result.explanation),
        "results.json": _json(summary_json(result)),
    }
    try:
        for name, content in files.items():
            atomic_write(fs, f"{root}/{name}", content)
    except OSError as exc:
        raise unwritable(out, exc) from None
    named = {name.split(".")[0] if name != "results.json" else "summary": f"{out}/{name}" for name in files}
    return {"split": f"{out}/{SPLIT}", **named}


def summary_json(result: StudyResult) -> dict[str, Any]:
    """The content of results.json: plain data, undefined numbers as null."""
    data = result.data
    counts = np.bincount(data.y, minlength=len(data.classes))
    return {
        "format_version": FORMAT_VERSION,
        "spec": result.spec.model_dump(mode="json", by_alias=True),
        "store": {"fingerprint": result.store_fingerprint, "rows": data.rows},
        "documents": {
            "used": len(data.y),
            "left_out": dict(data.left_out),
            "notes": list(data.notes),
            "truncated": data.truncated,
            "classes": {name: int(count) for name, count in zip(data.classes, counts, strict=True)},
            "groups": None if data.group is None else int(data.group.max()) + 1,
            "near_duplicates": _near_duplicates(result),
        },
        "split": {
            "sha256": result.split_sha256,
            "test_documents": [len(split.test) for split in result.splits],
            "test_documents_in_any_seed": len(np.unique(np.concatenate([split.test for split in result.splits]))),
            "warnings": warn_of_test_sets(data, result.spec, result.splits),
        },
        "selection": {"by": "mean macro F1 over inner folds of the training documents", "c_grid": list(result.c_grid)},
        "test_set": {
            "looked_at": test_looks(result),
            "by": "each method once in each split and regime; no choice was made by what it scored",
        },
        "intervals": {
            "level": LEVEL,
            "method": "percentile bootstrap",
            "resampled": resampled(result),
            "cover": "chance in what was tested, not in what was trained on",
            "resamples": result.spec.bootstrap,
            "seed": BOOTSTRAP_SEED,
        },
        "methods": [_summary(method, data.classes) for method in result.summary],
        "selected": {name: _summary(f, data.classes) for name, f in result.selected.items()},
        "headline": _headline(result),
        "added": list(what_is_added(result.spec, result.comparisons)),
        "difference_macro_f1": result.headline and interval_plain(result.headline.comparison.difference),
        "comparisons": [_comparison(c) for c in result.comparisons],
        "regimes": [
            {**dataclasses.asdict(r), "macro_f1": interval_plain(r.macro_f1), "auroc": interval_plain(r.auroc)}
            for r in result.regimes
        ],
        "slices": [_slice(one, data.classes) for one in result.slices],
        "decided": {
            family: decided_plain(decided, result.spec, data.classes, result.splits)
            for family, decided in result.decided.items()
        },
        "final_models": {
            "refit": result.spec.refit,
            "documents": len(data.y) if result.spec.refit else len(result.splits[0].train),
        },
        "made_of": dict(result.made_of),
        "feature_overlap": [
            dict(zip(("method", "train", "other", "jaccard"), overlap, strict=True)) for overlap in result.overlaps
        ],
        "versions": {"python": platform.python_version(), **{n: importlib.metadata.version(n) for n in LIBRARIES}},
    }


def test_looks(result: StudyResult) -> int:
    """How often a method's predictions for a test set were scored."""
    return len(result.summary) * (len(result.splits) + len(result.conditions))


def resampled(result: StudyResult) -> str:
    """What the bootstrap draws."""
    data = result.data
    unit = data.unit
    if unit is None:
        return "documents"
    groups = [] if data.group is None else [f"groups ({result.spec.split.group})"]
    if data.text_cluster is not None and int(data.text_cluster.max()) + 1 < len(data.y):
        groups.append("near-duplicate texts")
    return " joined with ".join(groups)


def _headline(result: StudyResult) -> dict[str, Any] | None:
    if result.headline is None:
        return None
    found = result.headline
    sides = {"sae": (found.sae, found.sae_macro_f1), "baseline": (found.baseline, found.baseline_macro_f1)}
    methods = {
        side: {"method": representative(names), "cells": list(names), "macro_f1": interval_plain(reached)}
        for side, (names, reached) in sides.items()
    }
    return {**methods, "comparison": _comparison(result.headline.comparison)}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    difference = interval_plain(comparison.difference)
    return {**dataclasses.asdict(comparison), "difference": difference, "shown": comparison.shown}


def _near_duplicates(result: StudyResult) -> dict[str, Any] | None:
    if result.data.text_cluster is None:
        return None
    size = np.bincount(result.data.text_cluster)
    return {
        "documents": int(size[size > 1].sum()),
        "clusters": int((size > 1).sum()),
        "largest": int(size.max()),
        "would_have_straddled_on_average": result.straddling,
        "straddling": 0,
    }


def _summary(method: MethodSummary, classes: Sequence[str]) -> dict[str, Any]:
    plain = {
        **dataclasses.asdict(method),
        "values": list(method.values),
        "C": list(method.C),
        "class_f1": list(method.class_f1),
        "classes": classes_plain(method.classes, classes),
        "cells": list(method.members),
        "notes": list(method.notes),
    }
    for name in ("macro_f1", "accuracy", "auroc"):
        plain[name] = interval_plain(getattr(method, name))
    return plain


def _slice(one: SliceSummary, classes: Sequence[str]) -> dict[str, Any]:
    plain = {**dataclasses.asdict(one), "classes": classes_plain(one.classes, classes)}
    del plain["measured"]
    plain["operating_point"] = None if one.measured is None else measured_plain(one.measured)
    return plain | {name: interval_plain(getattr(one, name)) for name in METRICS}


def _slices(result: StudyResult) -> pa.Table:
    """One row for each way of slicing, slice and method."""
    kinds = {"by": "str", "slice": "str", "method": "str", "documents": "int", "units": "int"}
    columns = {name: pa.array([getattr(s, name) for s in result.slices], _TYPES[kind]) for name, kind in kinds.items()}
    for name in METRICS:
        for part in ("value", "low", "high"):
            values = [getattr(getattr(s, name), part) for s in result.slices]
            columns[name if part == "value" else f"{name}_{part}"] = pa.array(values, pa.float64())
    for name in ("auprc", "brier", "ece"):
        columns[name] = pa.array([getattr(s, name) for s in result.slices], pa.float64())
    columns |= _at_thresholds(result)
    columns["too_small"] = pa.array([s.too_small for s in result.slices], pa.bool_())
    return pa.table({**columns, "warning": pa.array([s.warning or None for s in result.slices], pa.string())})


def _at_thresholds(result: StudyResult) -> dict[str, pa.Array]:
    """What an operating point comes to on each slice; null for methods that have none."""
    points = [None if s.measured is None else measured_plain(s.measured) for s in result.slices]
    columns = {}
    for share, n, hits in (("precision", "claimed", "claimed_right"), ("recall", "of_class", "of_class_claimed")):
        columns[n] = pa.array([p and p[share]["documents"] for p in points], pa.int64())
        columns[hits] = pa.array([p and p[share]["hits"] for p in points], pa.int64())
        for part in ("value", "low", "high"):
            name = f"point_{share}" if part == "value" else f"point_{share}_{part}"
            columns[name] = pa.array([p and p[share][part] for p in points], pa.float64())
    return columns


def _folds(result: StudyResult) -> pa.Table:
    names = FoldRow._fields
    kinds = (pa.string(), pa.string(), pa.int64(), pa.int64(), pa.float64(), pa.int64(), pa.float64())
    columns = list(zip(*result.fold_rows, strict=True)) or [()] * len(names)
    arrays = [pa.array(list(column), kind) for column, kind in zip(columns, kinds, strict=True)]
    return pa.table(dict(zip(names, arrays, strict=True)))


def _rows(rows: Sequence[MethodRow]) -> pa.Table:
    fields = {field.name: _TYPES[str(field.type).split(" ")[0]] for field in dataclasses.fields(MethodRow)}
    return pa.table({n: pa.array([getattr(row, n) for row in rows], kind) for n, kind in fields.items()})


def _predictions(result: StudyResult) -> pa.Table:
    """One row for each method, seed and test document.

    `score` holds the log-probability of each class. Of the methods with an operating point, `decision` is the class by
    the thresholds of the split, null where `undecided`. Of a model file's method and split, `probability` is what the
    evaluated model says of each class, calibrated where that helps.
    """
    classes, tables = np.array(result.data.classes, dtype=object), []
    decided = {one.method: one for one in result.decided.values()}
    for summary, seeds in zip(result.summary, result.predictions, strict=True):
        for s, (split, answer) in enumerate(zip(result.splits, seeds, strict=True)):
            n = len(answer.rows)
            columns = {
                "doc_id": pa.array(result.data.doc_id[answer.rows], pa.string()),
                "seed": pa.array(np.full(n, split.seed), pa.int64()),
                "outer": pa.array(np.full(n, split.outer), pa.int64()),
                "method": pa.array([summary.method] * n, pa.string()),
                "y_true": pa.array(classes[answer.y_true], pa.string()),
                "y_pred": pa.array(classes[answer.y_pred], pa.string()),
                "score": _lists(answer.log_proba),
                **_decisions(result, decided.get(summary.method), s, answer),
            }
            tables.append(pa.table(columns))
    return pa.concat_tables(tables).combine_chunks()


def _decisions(result: StudyResult, decided: Decided | None, s: int, answer: Prediction) -> dict[str, pa.Array]:
    """The columns `probability`, `decision` and `undecided` of one method on split s."""
    n = len(answer.rows)
    probability = pa.nulls(n, pa.list_(pa.float64()))
    decision, undecided = pa.nulls(n, pa.string()), pa.nulls(n, pa.bool_())
    if decided is not None and decided.calibration is not None and s == 0:
        chosen = decided.calibration
        probability = _lists(np.exp(calibrated(chosen.method, chosen.arrays, answer.log_proba)))
    if decided is not None and decided.points and result.spec.operating_point is not None:
        point, names = decided.points[s], np.array([*result.data.classes, None], dtype=object)
        c = class_of(result.spec.operating_point, result.data.classes)
        found = decide_by(c, point.low, point.high, answer.log_proba)
        decision, undecided = pa.array(names[found], pa.string()), pa.array(found < 0, pa.bool_())
    return {"probability": probability, "decision": decision, "undecided": undecided}


def _lists(values: np.ndarray) -> pa.Array:
    """[n, classes] as a list a row."""
    offsets = pa.array(np.arange(len(values) + 1) * values.shape[1], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), pa.float64()))


def _parquet(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _json(content: Mapping[str, Any] | None) -> bytes:
    return f"{json_text(content, indent=2)}\n".encode()
