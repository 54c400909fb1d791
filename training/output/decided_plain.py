"""How methods decide as plain data, undefined numbers as NaN: for results.json, and for the header of a model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from training.documents.split import Split
from training.results.decided import class_of
from training.results.records import Decided, MethodSummary
from training.scores.metrics import ClassScores
from training.scores.operating_points import OperatingPoint
from training.scores.operating_words import interval_plain, measured_plain, of_the_file
from training.spec import OperatingPointSpec, StudySpec


def decided_plain(decided: Decided, spec: StudySpec, classes: Sequence[str], splits: Sequence[Split]) -> dict[str, Any]:
    """One method for results.json."""
    return {
        "method": decided.method,
        "calibration": calibration_header(decided),
        "operating_point": None
        if spec.operating_point is None or decided.measured is None
        else {
            **_asked(spec.operating_point, classes),
            "thresholds": [
                {"seed": split.seed, "outer": split.outer, **_point(point)}
                for split, point in zip(splits, decided.points, strict=True)
            ],
            "test": measured_plain(decided.measured),
            "model_file": _model_file(decided, splits[0]),
        },
    }


def calibration_header(decided: Decided) -> dict[str, Any] | None:
    """The calibration of a method and what it changes; None where the study asks for none."""
    if decided.calibration is None:
        return None
    chosen = decided.calibration
    return {
        "method": chosen.method,
        "chosen_by": "log loss of out-of-fold scores",
        "log_loss": dict(chosen.log_loss),
        "test": {when: None if scores is None else dict(scores) for when, scores in decided.tested.items()},
    }


def point_header(decided: Decided, spec: StudySpec, classes: Sequence[str]) -> dict[str, Any] | None:
    """The operating point of the evaluated model; None without one."""
    if spec.operating_point is None or decided.measured_first is None:
        return None
    return {
        **_asked(spec.operating_point, classes),
        **_point(decided.points[0]),
        "test": measured_plain(decided.measured_first),
    }


def evaluation_header(
    summary: MethodSummary, classes: Sequence[str], split: Split, n_splits: int, sha256: str
) -> dict[str, Any]:
    """What the evaluation of a method came to: its scores over all splits, and the split of the evaluated model."""
    return {
        "split_sha256": sha256,
        "splits": n_splits,
        "seed": split.seed,
        "outer": split.outer,
        "training_documents": len(split.train),
        "test_documents": len(split.test),
        **{name: interval_plain(getattr(summary, name)) for name in ("macro_f1", "accuracy", "auroc")},
        **{name: getattr(summary, name) for name in ("auprc", "brier", "ece")},
        "classes": classes_plain(summary.classes, classes),
    }


def classes_plain(scores: Sequence[ClassScores], classes: Sequence[str]) -> list[dict[str, Any]]:
    """The scores of each class."""
    return [{"class": name, **asdict(one)} for name, one in zip(classes, scores, strict=True)]


def _model_file(decided: Decided, split: Split) -> dict[str, Any] | None:
    """What the threshold in the model file came to on the test documents of its split; None without a file."""
    if decided.measured_first is None or not decided.in_file:
        return None
    test = measured_plain(decided.measured_first)
    return {"seed": split.seed, "outer": split.outer, "test": test, "says": of_the_file(test, split.seed)}


def _asked(spec: OperatingPointSpec, classes: Sequence[str]) -> dict[str, Any]:
    aim = spec.cost.model_dump() if spec.cost is not None else getattr(spec, spec.aim)
    return {"class": classes[class_of(spec, classes)], "aim": {spec.aim: aim}, "undecided": spec.undecided}


def _point(point: OperatingPoint) -> dict[str, Any]:
    return {
        "low": point.low,
        "high": point.high,
        "reached": point.reached,
        "note": point.note,
        "few": point.few,
        "out_of_fold": {
            **point.out_of_fold,
            **{name: int(point.out_of_fold[name]) for name in ("claimed", "hits", "documents", "positives")},
        },
    }
