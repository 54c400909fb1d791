"""Whether what a model file says of its thresholds and its calibration can be used: nothing is believed unchecked."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from featurestore.models.thresholds import BY_PEOPLE

CALIBRATIONS: Mapping[str, tuple[str, ...]] = {
    "sigmoid": ("calibration_slope", "calibration_offset"),
    "isotonic": ("calibration_score", "calibration_share", "calibration_start"),
    "temperature": ("calibration_beta",),
}


def threshold_problem(header: Mapping[str, Any]) -> str | None:
    """Why the operating point of a model file is none, or None."""
    point = header.get("operating_point")
    if point is None:
        return None
    if not isinstance(point, dict) or point.get("class") not in header["classes"]:
        return "key 'operating_point' names no class of the model"
    if BY_PEOPLE in header["classes"]:
        return (
            f"a class is called '{BY_PEOPLE}', which with its operating point is also said of documents that people "
            "decide; call it something else in the labels of the study"
        )
    low, high = point.get("low"), point.get("high")
    if not (isinstance(low, float) and isinstance(high, float) and -np.inf < low <= high < np.inf):
        return "key 'operating_point' has no thresholds"
    if not isinstance(point.get("reached", True), bool) or any(
        not isinstance(point.get(key, ""), str) for key in ("note", "few")
    ):
        return "key 'operating_point' does not say whether its aim was reached"
    return None


def calibration_problem(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str | None:
    """Why the calibration of a model file is none, or None."""
    calibration = header.get("calibration")
    if calibration is None:
        return None
    if not isinstance(calibration, dict) or calibration.get("method", "") not in (None, *CALIBRATIONS):
        return "key 'calibration' is wrong"
    method = calibration["method"]
    if method is None:
        return None
    missing = [name for name in CALIBRATIONS[method] if name not in tensors]
    if missing:
        return f"tensor '{missing[0]}' is missing"
    return _shape_problem(method, tensors, 1 if len(header["classes"]) == 2 else len(header["classes"]))


def _shape_problem(method: str, tensors: Mapping[str, np.ndarray], lines: int) -> str | None:
    if method == "temperature":
        return None if tensors["calibration_beta"].shape == (1,) else "tensor 'calibration_beta' is not one number"
    if method == "sigmoid":
        wrong = [name for name in CALIBRATIONS[method] if tensors[name].shape != (lines,)]
        return f"tensor '{wrong[0]}' has shape {tensors[wrong[0]].shape}, not {(lines,)}" if wrong else None
    start, score, share = (tensors[f"calibration_{name}"] for name in ("start", "score", "share"))
    if (
        start.dtype.kind != "i"
        or start.shape != (lines + 1,)
        or start[0] != 0
        or (np.diff(start) < 1).any()
        or score.shape != (start[-1],)
        or share.shape != score.shape
        or any((np.diff(score[a:b]) < 0).any() for a, b in pairwise(start))
    ):
        return "tensors of 'calibration' do not fit together"
    return "a calibrated share is no probability" if ((share < 0) | (share > 1)).any() else None
