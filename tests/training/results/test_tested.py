"""What is said of test sets before anybody reads a score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.training.documents.test_split import data_of
from training.documents.labels import StudyData
from training.documents.split import make_splits
from training.results.tested import warn_of_test_sets
from training.spec import study_from_mapping


def said_of(data: StudyData, **split: Any) -> list[str]:
    spec = study_from_mapping({"store": "s", "label": "label", "baselines": ["majority"], "split": split}, ".")
    return warn_of_test_sets(data, spec, make_splits(data, spec.split))


@pytest.mark.parametrize(("held_out", "warned"), [(29, True), (30, False)])
def test_fewer_than_thirty_test_documents_are_warned_of(held_out: int, warned: bool) -> None:
    data = data_of([i % 2 for i in range(100)])
    part = np.array(["test" if i < held_out else "train" for i in range(100)], dtype=object)
    said = said_of(replace(data, columns={"part": part}), seeds=1, folds=2, column={"name": "part"})
    assert said == (
        [
            "only 29 labelled documents are tested on in all splits together; of fewer than 30 an interval is too "
            "narrow to be believed, so hold out or label more"
        ]
        if warned
        else []
    )


def test_documents_of_a_group_count_as_one_and_splits_count_together() -> None:
    grouped = data_of([i // 4 % 2 for i in range(160)], [i // 4 for i in range(160)])
    (said,) = said_of(grouped, seeds=1, folds=2)
    assert said.startswith("only 8 groups (32 documents) are tested on in all splits together; of fewer than 30")
    assert said_of(grouped, seeds=1, folds=2, outer=5) == []  # all 40 groups are held out in turn
