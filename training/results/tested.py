"""Warn of test sets: shares that are not what was asked for, values of transfer that none holds, and too few documents.

Screen, page and results.json say these sentences; no score is needed for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featurestore.base.number_words import counted
from training.documents.labels import StudyData
from training.documents.share_warnings import share_warnings
from training.documents.split import Split
from training.documents.too_few_units import quoted, units_called
from training.scores.bootstrap import TOO_FEW
from training.spec import StudySpec

NAMED = 5  # values that a warning lists before it counts the others


def warn_of_test_sets(data: StudyData, spec: StudySpec, splits: Sequence[Split]) -> list[str]:
    """What somebody who reads the scores must know of the documents that they are of, in sentences.

    Args:
        data: The documents.
        spec: The study.
        splits: Of the study itself.
    """
    tested = np.unique(np.concatenate([split.test for split in splits]))
    said = share_warnings(data, spec.split, splits)
    if (units := data.count_units_of(tested)) < TOO_FEW:
        documents = "" if units == len(tested) else f" ({counted(len(tested), 'document')})"
        said.append(
            f"only {units} {units_called(data, units)}{documents} are tested on in all splits together; of fewer than "
            f"{TOO_FEW} an interval is too narrow to be believed, so hold out or label more"
        )
    if absent := _untested_parts(data, spec, splits):
        more = f" and {len(absent) - NAMED:,} more" if len(absent) > NAMED else ""
        named = ", ".join(quoted(part) for part in absent[:NAMED])
        said.append(f"transfer: no test set holds a document of {named}{more}, so nothing is said of how that goes")
    return said


def parts_of(data: StudyData, spec: StudySpec) -> list[str]:
    """The values of the transfer column, each a part of the test documents; none without transfer."""
    return [] if spec.transfer is None else sorted(set(data.columns[spec.transfer.by]))


def _untested_parts(data: StudyData, spec: StudySpec, splits: Sequence[Split]) -> list[str]:
    """The values of the transfer column that no test set holds."""
    if spec.transfer is None:
        return []
    values = data.columns[spec.transfer.by]
    tested = {value for split in splits for value in values[split.test]}
    return [part for part in parts_of(data, spec) if part not in tested]
