"""A document with which something is wrong gets what the rule says, and never a class by accident."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.errors import JobFailed, UsageError
from featurestore.models.predict import CUT, EMPTY, Predicted
from featurestore.models.rule import Rule

CLASSES = ["ham", "spam"]
BATCH = Predicted(
    doc_id=np.array(["good", "broken", "empty", "long"], dtype=object),
    y_pred=np.array([1, -1, -1, 0]),
    decided=np.array([1, -1, -1, 0]),
    proba=np.array([[0.2, 0.8], [np.nan] * 2, [np.nan] * 2, [0.9, 0.1]]),
    in_training=None,
    problem=[None, "the row is not JSON", EMPTY, CUT],
    truncated=np.array([False, False, False, True]),
)


def test_failed_empty_and_truncated_documents_are_undecided() -> None:
    assert Rule().decide(CLASSES, BATCH) == ["spam", "undecided", "undecided", "undecided"]
    assert Rule().problems(BATCH) == BATCH.problem


def test_a_class_can_be_given_to_them() -> None:
    assert Rule("spam").decide(CLASSES, BATCH) == ["spam"] * 4


def test_truncated_documents_can_be_decided_by_their_beginning() -> None:
    rule = Rule(accept_truncated=True)
    assert rule.decide(CLASSES, BATCH) == ["spam", "undecided", "undecided", "ham"]
    assert rule.problems(BATCH) == [None, "the row is not JSON", EMPTY, None]


def test_they_can_end_the_command() -> None:
    with pytest.raises(JobFailed, match="document broken: the row is not JSON; mend or remove it"):
        Rule("fail").decide(CLASSES, BATCH)


def test_a_rule_names_a_class_of_the_model() -> None:
    for word in ("undecided", "fail", "spam"):
        Rule(word).check(CLASSES)
    with pytest.raises(UsageError, match=r"'spm' is no class of this model; .* did you mean 'spam'"):
        Rule("spm").check(CLASSES)


def test_a_rule_that_could_mean_a_class_too_is_refused() -> None:
    Rule().check(["pass", "fail"])
    Rule("pass").check(["pass", "fail"])
    with pytest.raises(
        UsageError, match=r"--on-error: 'fail' is a class of this model, and would end the command too;"
    ):
        Rule("fail").check(["pass", "fail"])
