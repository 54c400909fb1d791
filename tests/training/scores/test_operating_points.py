"""Thresholds come from out-of-fold scores alone, do what they are for, and say so where they cannot."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from featurestore.errors import StudyError
from featurestore.models.thresholds import CLAIMED, REJECTED, UNDECIDED, sides
from training.scores.operating_points import Aim, choose_point, measure


def scores(n: int = 400, apart: float = 1.5, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    positive = dice.random(n) < 0.3
    score = dice.normal(size=n) + apart * positive
    return (np.round(score, 1) if ties else score), positive


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("target", [0.5, 0.7, 0.8])
def test_a_precision_is_reached_with_as_much_recall_as_scikit_learns_curve_has(target: float, ties: bool) -> None:
    score, positive = scores(ties=ties)
    point = choose_point(score, positive, Aim("precision", target), "spam")
    precision, recall, _ = precision_recall_curve(positive, score)
    best = recall[:-1][precision[:-1] >= target].max()
    assert point.reached
    assert point.out_of_fold["recall"] == pytest.approx(best)
    claimed = score >= point.high
    assert positive[claimed].mean() == pytest.approx(point.out_of_fold["precision"])
    assert positive[claimed].mean() >= target
    assert (claimed & positive).sum() / positive.sum() == pytest.approx(best)


@pytest.mark.parametrize("ties", [False, True])
def test_a_recall_is_reached_with_as_much_precision_as_scikit_learns_curve_has(ties: bool) -> None:
    score, positive = scores(ties=ties)
    point = choose_point(score, positive, Aim("recall", 0.9), "spam")
    _, recall, thresholds = precision_recall_curve(positive, score)
    strictest = thresholds[recall[:-1] >= 0.9].max()
    assert (score >= point.high).tolist() == (score >= strictest).tolist()


def test_a_false_positive_rate_is_kept_with_as_much_recall_as_scikit_learns_curve_has() -> None:
    score, positive = scores()
    point = choose_point(score, positive, Aim("false_positive_rate", 0.05), "spam")
    false, true, _ = roc_curve(positive, score, drop_intermediate=False)
    assert point.out_of_fold["recall"] == pytest.approx(true[false <= 0.05].max())
    assert (score >= point.high)[~positive].mean() <= 0.05


def test_errors_cost_no_less_at_any_other_threshold() -> None:
    score, positive = scores()
    point = choose_point(score, positive, Aim("cost", false_positive=1.0, false_negative=20.0), "spam")
    costs = [(score[~positive] >= t).sum() + 20 * (score[positive] < t).sum() for t in score]
    assert point.out_of_fold["cost"] * len(score) == pytest.approx(min(costs))


def test_a_precision_out_of_reach_is_said_with_the_nearest_that_is_not() -> None:
    score, positive = scores(apart=0.0)
    score[np.argmax(np.where(positive, -np.inf, score))] = 9.0  # whatever is claimed begins with a false alarm
    point = choose_point(score, positive, Aim("precision", 0.99), "spam")
    precision, _, _ = precision_recall_curve(positive, score)
    assert not point.reached
    assert point.out_of_fold["precision"] == pytest.approx(precision[:-1].max())
    assert "precision 0.99 of 'spam' is not reached out of fold" in point.note
    assert f"the nearest is {precision[:-1].max():.3g}" in point.note


def test_a_false_positive_rate_that_only_an_idle_threshold_keeps_is_not_reached() -> None:
    score, positive = np.array([3.0, 2.0, 1.0, 0.0]), np.array([False, True, True, False])
    point = choose_point(score, positive, Aim("false_positive_rate", 0.0), "spam")
    assert not point.reached
    assert point.out_of_fold["false_positive_rate"] == 0.5
    assert point.out_of_fold["recall"] == 1.0


def test_it_is_said_where_claiming_nothing_would_be_cheapest() -> None:
    score, positive = np.array([3.0, 2.0, 1.0, 0.0]), np.array([False, False, True, False])
    point = choose_point(score, positive, Aim("cost", false_positive=10.0), "spam")
    assert not point.reached
    assert "cost least to claim no document" in point.note


@pytest.mark.parametrize(
    ("aim", "below"),
    [
        (Aim("precision", 0.8, undecided=0.05), True),
        (Aim("false_positive_rate", 0.05, undecided=0.05), True),
        (Aim("recall", 0.9, undecided=0.05), False),
        (Aim("cost", false_negative=20.0, undecided=0.05), False),
        (Aim("cost", false_positive=20.0, undecided=0.05), True),
    ],
)
def test_the_share_that_is_handed_on_lies_where_the_aim_lets_errors_pass(aim: Aim, below: bool) -> None:
    score, positive = scores()
    point = choose_point(score, positive, aim, "spam")
    alone = choose_point(score, positive, Aim(aim.kind, aim.value, aim.false_positive, aim.false_negative), "spam")
    assert alone.low == alone.high
    assert alone.high == (point.high if below else point.low)
    side = sides(score, point.low, point.high)
    assert (side == UNDECIDED).mean() == pytest.approx(0.05)
    assert point.out_of_fold["undecided"] == pytest.approx(0.05)


def test_ties_are_not_torn_apart_to_hand_on_a_share() -> None:
    score, positive = np.repeat([2.0, 1.0, 0.0], 20), np.arange(60) % 3 == 0
    score = score + 0.0
    point = choose_point(score, positive, Aim("recall", 0.5, undecided=0.1), "spam")
    assert point.low == point.high
    assert "no documents are handed on" in point.note


def test_thresholds_lie_between_scores() -> None:
    point = choose_point(np.array([4.0, 2.0, 0.0]), np.array([True, True, False]), Aim("precision", 1.0), "spam")
    assert point.high == 1.0


def test_one_more_document_far_away_moves_no_threshold_in_the_middle() -> None:
    score, positive = scores()
    before = choose_point(score, positive, Aim("recall", 0.8), "spam")
    after = choose_point(np.append(score, -1e300), np.append(positive, False), Aim("recall", 0.8), "spam")
    assert (before.low, before.high) == (after.low, after.high)


@pytest.mark.parametrize(
    ("score", "positive", "said"),
    [
        ([1.0, np.nan], [True, False], "1 of 2 out-of-fold scores of 'spam' are no numbers"),
        ([1.0, 2.0], [True, True], "all of 2 training documents are of class 'spam'"),
        ([1.0, 2.0], [False, False], "none of 2 training documents are of class 'spam'"),
        ([1.0], [True], "all of 1 training documents is of class 'spam'"),
    ],
)
def test_scores_that_no_threshold_can_be_chosen_on_are_refused(score: list, positive: list, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        choose_point(np.array(score), np.array(positive), Aim("recall", 0.5), "spam")


def split_scores(right: int, wrong: int, others: int, missed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of 9 for documents that are claimed, 1 for the others."""
    positive = np.repeat([True, False, False, True], [right, wrong, others, missed])
    return np.repeat([9.0, 9.0, 1.0, 1.0], [right, wrong, others, missed]), positive


def test_a_precision_reached_on_one_document_is_said_with_the_interval_by_hand() -> None:
    point = choose_point(*split_scores(1, 0, 54, 53), Aim("precision", 0.9), "hateful")
    low = 1 / (1 + 1.959964**2)  # Wilson's lower end of n right of n is n / (n + z^2): 0.207 for one
    assert point.reached
    assert point.few == (
        "precision 0.9 of 'hateful' is reached out of fold on few documents (1 claimed document, 1 of it right): the "
        f"interval [{low:.3f}, 1.000] does not exclude 0.8, twice the errors that the aim allows"
    )
    assert (point.out_of_fold["claimed"], point.out_of_fold["hits"]) == (1, 1)


def test_as_many_documents_as_exclude_twice_the_errors_are_not_few() -> None:
    few = [bool(choose_point(*split_scores(n, 0, 54, 53), Aim("precision", 0.9), "x").few) for n in range(1, 40)]
    assert few.index(False) + 1 == 16  # n / (n + 3.8415) > .8 from n = 15.4
    assert not any(few[15:])


def test_a_precision_of_a_half_is_held_to_half_of_it() -> None:
    few = [choose_point(*split_scores(n, 0, 200, 53), Aim("precision", 0.5), "x").few for n in (1, 2)]
    assert few[0].endswith("does not exclude 0.25, half of the aim")
    assert few[1] == ""  # 2 / (2 + 3.8415) is .342


def test_a_recall_of_few_documents_of_the_class_and_a_rate_of_few_others_are_said_too() -> None:
    recall = choose_point(*split_scores(18, 0, 500, 2), Aim("recall", 0.9), "x").few
    assert "(20 documents of the class, 18 claimed): the interval [0.699, 0.972] does not exclude 0.8" in recall
    rate = choose_point(*split_scores(50, 0, 150, 50), Aim("false_positive_rate", 0.01), "x").few
    low = 1.959964**2 / (150 + 1.959964**2)  # upper end of none of 150: z^2 / (n + z^2)
    assert f"(150 documents of other classes, 0 claimed): the interval [0.000, {low:.3f}] does not exclude 0.02" in rate
    assert choose_point(*split_scores(50, 0, 400, 50), Aim("false_positive_rate", 0.01), "x").few == ""
    assert "does not exclude 0.99, and the aim allows no error" in (
        choose_point(*split_scores(50, 0, 400, 50), Aim("precision", 1.0), "x").few
    )


def test_documents_of_one_group_count_as_few() -> None:
    score, positive = split_scores(30, 0, 54, 53)
    unit = np.arange(len(score)) // 10
    assert choose_point(score, positive, Aim("precision", 0.9), "x").few == ""
    assert "does not exclude 0.8" in choose_point(score, positive, Aim("precision", 0.9), "x", unit).few


def test_what_a_threshold_comes_to_is_counted_on_the_documents_given() -> None:
    side = np.array([CLAIMED, CLAIMED, CLAIMED, UNDECIDED, UNDECIDED, REJECTED, REJECTED, REJECTED])
    positive = np.array([True, True, False, True, False, True, False, False])
    found = measure(side, positive, np.arange(8), Aim("cost", false_positive=1.0, false_negative=20.0))
    shares = {name: getattr(found, name).interval.value for name in ("precision", "recall", "caught", "undecided")}
    assert shares == pytest.approx({"precision": 2 / 3, "recall": 2 / 4, "caught": 3 / 4, "undecided": 2 / 8})
    assert found.false_positive_rate.interval.value == pytest.approx(1 / 4)
    assert found.cost == pytest.approx((1 + 20) / 8)


def test_where_nothing_is_claimed_precision_is_undefined_and_recall_is_not() -> None:
    found = measure(np.full(3, REJECTED), np.array([True, False, False]), np.arange(3), Aim("precision", 0.9))
    assert np.isnan(found.precision.interval.value)
    assert found.recall.interval.value == 0.0
    assert np.isnan(found.cost)
