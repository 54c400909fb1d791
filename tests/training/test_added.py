"""What features add is said by the study's own comparisons, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from training.results.added_value import what_is_added
from training.results.factors import AGAINST_BASELINES, BESIDE
from training.scores.bootstrap import Interval
from training.scores.significance import Comparison
from training.spec import StudySpec

NUMBERS = {"columns": ["margin"], "path": "labels.parquet", "id": "id"}


def spec(**changes: Any) -> StudySpec:
    return StudySpec.model_validate({
        "store": "stores/a",
        "label": {"path": "labels.parquet", "id": "id", "column": "correct"},
        "features": [{"sae": "l9", "beside": ["margin"]}],
        "baselines": ["tfidf", NUMBERS],
        **changes,
    })  # fmt: skip


def against(baseline: str, difference: float, shown: bool = True, question: str = AGAINST_BASELINES) -> Comparison:
    p = 0.001 if shown else 0.6
    a = "SAE features" if question == AGAINST_BASELINES else f"{baseline} and SAE features"
    return Comparison(
        question,
        a,
        baseline,
        Interval(difference, difference - 0.01, difference + 0.01),
        p,
        0.005,
        p,
        0.6 + difference,
        0.6,
    )


@pytest.mark.parametrize(
    ("comparisons", "said"),
    [
        (
            [against("majority", 0.2), against("TF-IDF words", 0.1), against("margin", 0.05)],
            "So they tell more about 'correct' than every baseline of this study.",
        ),
        (
            [against("majority", 0.2), against("TF-IDF words", 0.1), against("margin", -0.05)],
            "So they tell something about 'correct' that is not in TF-IDF words, and nothing is shown that they add to "
            "margin.",
        ),
        (
            [
                against("majority", 0.2),
                against("margin", -0.05),
                against("margin", 0.03, question=f"{BESIDE} margin"),
            ],
            "So they tell something about 'correct' that is not in margin.",
        ),
        (
            [against("majority", 0.0, shown=False), against("margin", -0.1)],
            "So nothing is shown that they tell about 'correct': always giving the commonest answer does as well.",
        ),
        (
            [against("majority", 0.2), against("margin", 0.01, shown=False)],
            "So they tell something about 'correct', but nothing is shown that is not in margin.",
        ),
    ],
)
def test_the_conclusion_follows_what_is_shown(comparisons: list[Comparison], said: str) -> None:
    assert what_is_added(spec(), comparisons)[-1] == said


def test_each_side_is_named_once_and_what_is_not_shown_is_not_said() -> None:
    beside = against("margin", 0.004, shown=False, question=f"{BESIDE} margin")
    first, second, _ = what_is_added(
        spec(), [against("majority", 0.2), against("TF-IDF words", 0.0, shown=False), against("margin", -0.1), beside]
    )
    assert first == (
        "SAE features of a predict 'correct' better than majority; worse than margin; not shown to differ from TF-IDF "
        "words."
    )
    assert (
        second
        == "Beside margin they are not shown to add anything (macro F1 0.604 against 0.600, +0.004 [-0.006, +0.014])."
    )


def test_where_nothing_is_shown_the_sentence_is_one_of_its_own() -> None:
    first, *_ = what_is_added(spec(), [against("majority", 0.2, shown=False), against("margin", 0.1, shown=False)])
    assert first == "SAE features of a are not shown to differ from majority and margin in predicting 'correct'."


def test_a_study_of_one_store_alone_says_nothing_of_this() -> None:
    alone = spec(baselines=["tfidf"], features=[{"sae": "l9"}])
    assert what_is_added(alone, [against("majority", 0.2)]) == ()
