"""An operating point as plain data and in words: what it came to, and what has to be known before anybody relies on it.

The screen, the page of a study, its results and `predict` take their sentences from here, so that all say the same.
Plain data is that of results.json: a share is `{"value", "low", "high", "hits", "documents", ...}`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from featurestore.base.number_words import counted
from training.scores.bootstrap import Interval
from training.scores.operating_points import Measured
from training.scores.proportions import Proportion

SHARES = ("precision", "recall", "caught", "false_positive_rate", "undecided")


def measured_plain(measured: Measured) -> dict[str, Any]:
    """What thresholds come to."""
    return {name: _share(getattr(measured, name)) for name in SHARES} | {"cost": measured.cost}


def interval_plain(interval: Interval) -> dict[str, float]:
    """An interval."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def of_the_file(test: Mapping[str, Any], seed: int) -> str:
    """What the threshold in a model file did on the test documents of its own split, in a sentence.

    Args:
        test: As `measured_plain` makes it, of the split that the model file is made from.
        seed: Of that split.
    """
    precision, recall, n = test["precision"], test["recall"], test["undecided"]["documents"]
    some = f"{precision['documents']:,} of {counted(n, 'test document')}"
    claims = f"the model file's threshold (seed {seed}) claims {some}"
    found = f"{recall['hits']:,} of {recall['documents']:,} of the class found"
    if not precision["documents"]:
        return f"{claims}: its precision is not known; {found}"
    worth = f"{precision['hits']:,} right: precision {share_text(precision)}"
    return f"{claims}, {worth}; {found}, recall {share_text(recall)}"


def threshold_notes(thresholds: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What has to be said of the thresholds of all splits: ("note" or "warning", sentence), each with its splits.

    Args:
        thresholds: Each with its seed, `note` and `few`, the model file's first.
    """
    n, said = len(thresholds), []
    notes = [one["note"] for one in thresholds if one.get("note")]
    said += [("note", f"{note}{_splits(notes.count(note), n)}") for note in dict.fromkeys(notes)]
    few = [one for one in thresholds if one.get("few")]
    if few:
        which = "" if n == 1 else f" (seed {few[0]['seed']}; reached on few in {len(few)} of {n} splits)"
        said.append(("warning", f"{few[0]['few']}{which}"))
    return said


def share_text(share: Mapping[str, Any]) -> str:
    """A share with its interval: "0.750 [0.527, 0.890]"; "n/a" without documents."""
    value, low, high = (share[key] for key in ("value", "low", "high"))
    if value is None or math.isnan(value):
        return "n/a"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _splits(count: int, n: int) -> str:
    return f" (in {count} of {n} splits)" if n > 1 else ""


def _share(share: Proportion) -> Mapping[str, Any]:
    return {
        **interval_plain(share.interval),
        "hits": share.hits,
        "documents": share.n,
        "units": share.units,
        "interval": share.method,
    }
