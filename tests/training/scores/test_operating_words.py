"""What a model file's threshold did is one sentence, and notes say of how many splits they are true."""

from __future__ import annotations

import numpy as np

from featurestore.models.thresholds import CLAIMED, REJECTED
from training.scores.operating_points import Aim, measure
from training.scores.operating_words import measured_plain, of_the_file, threshold_notes


def of(right: int, wrong: int, missed: int, others: int) -> dict:
    side = np.repeat([CLAIMED, CLAIMED, REJECTED, REJECTED], [right, wrong, missed, others])
    positive = np.repeat([True, False, True, False], [right, wrong, missed, others])
    return measured_plain(measure(side, positive, np.arange(len(side)), Aim("precision", 0.9)))


def test_a_threshold_that_claims_nothing_has_no_known_precision() -> None:
    assert of_the_file(of(0, 0, 36, 17), 0) == (
        "the model file's threshold (seed 0) claims 0 of 53 test documents: its precision is not known; "
        "0 of 36 of the class found"
    )


def test_a_threshold_that_claims_some_is_told_with_counts_and_intervals() -> None:
    assert of_the_file(of(18, 6, 18, 11), 3) == (  # Wilson by hand: 18/24 and 18/36
        "the model file's threshold (seed 3) claims 24 of 53 test documents, 18 right: precision 0.750 [0.551, 0.880]; "
        "18 of 36 of the class found, recall 0.500 [0.345, 0.655]"
    )


def test_notes_say_of_how_many_splits_they_are_true() -> None:
    splits = [{"seed": 0, "note": "", "few": "on one"}, {"seed": 1, "note": "not reached", "few": ""}]
    assert threshold_notes([*splits, {"seed": 2, "note": "", "few": "on two"}]) == [
        ("note", "not reached (in 1 of 3 splits)"),
        ("warning", "on one (seed 0; reached on few in 2 of 3 splits)"),
    ]
    assert threshold_notes(splits[:1]) == [("warning", "on one")]
    assert threshold_notes([{"seed": 0, "note": "older file"}]) == [("note", "older file")]
