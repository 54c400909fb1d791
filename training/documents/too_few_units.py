"""Refuse a split, before it is drawn, for which a class has too few sampling units.

What is counted is what is drawn: groups and clusters of near-duplicates where there are any, not their documents.
"""

from __future__ import annotations

import numpy as np

from featurestore.errors import StudyError
from training.documents.labels import StudyData, count_units
from training.spec import SplitSpec


def check_sizes(data: StudyData, spec: SplitSpec) -> None:
    """Every class needs units to be tested on and to learn from; of a given split, `check_units` judges the latter.

    Raises:
        StudyError: A class has fewer, or the share to be held out is smaller than one document of each class.
    """
    if spec.outer is not None:
        # What is left when one of two outer folds is held out must still fill two inner ones.
        need = max(spec.folds + 1, spec.outer, 4 if spec.outer == 2 else 0)
        check_units(data, None, need, f"{spec.outer} outer folds of {spec.folds} inner ones each need")
        return
    check_units(data, None, spec.folds + 1, f"a test set and {spec.folds} folds need")
    if round(len(data.y) * spec.test) < len(data.classes):
        raise StudyError(
            f"split.test: {spec.test:g} of {len(data.y)} documents is fewer than one for each of "
            f"{len(data.classes)} classes; raise it"
        )


def check_units(data: StudyData, rows: np.ndarray | None, need: int, who: str) -> None:
    """Every class needs so many units.

    Args:
        data: The documents.
        rows: Which of them count; None for all.
        need: Units of each class.
        who: Needs them, with the verb.

    Raises:
        StudyError: A class has fewer; one sentence that names it and says what can be done.
    """
    n_classes, here = len(data.classes), slice(None) if rows is None else rows
    unit = None if data.unit is None else data.unit[here]
    units, documents = (count_units(data.y[here], u, n_classes) for u in (unit, None))
    short = np.flatnonzero(units < need)
    if not len(short):
        return
    code = int(short[np.argmin(units[short])])
    what = f"{units[code]:,} {units_called(data, int(units[code]))}"
    what += "" if data.unit is None else f" ({documents[code]:,} document{'' if documents[code] == 1 else 's'})"
    others = f" (and so do {len(short) - 1:,} more classes that are too small)" if len(short) > 1 else ""
    rare = f", or split.min_per_class: {need}" if rows is None else ""
    ways = [f"leave it out (split.exclude_classes{rare})"]
    ways += ["set split.duplicates: ignore"] if data.unit is not data.group else []
    ways += ["lower split.folds"] if units[code] > 2 else []  # two folds and a test set need three
    raise StudyError(
        f"label: class {quoted(data.classes[code])} has {what}{'' if rows is None else ' to learn from'}, but {who} "
        f"{need}{others}; {', '.join(ways)}, or label more"
    )


def quoted(name: str) -> str:
    """A class name on one line; a text column taken for a label has names of any length."""
    line = " ".join(name.split())
    return f"'{line if len(line) <= 60 else f'{line[:57]}...'}'"


def units_called(data: StudyData, n: int) -> str:
    """What n of the study's units are called."""
    plural = "" if n == 1 else "s"
    if data.unit is None:
        return f"labelled document{plural}"
    if data.unit is data.group:
        return f"group{plural}"
    if data.group is None:
        return f"cluster{plural} of near-duplicate texts"
    return f"group{plural} joined by near-duplicate texts"
