"""The blind test of names judges as it says: by strings alone, on documents that no name was made from."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.feature_names import draw_features, halves, judged, matches, summary


def test_a_group_is_never_divided() -> None:
    groups = [f"g{n % 50}" for n in range(400)]
    training = halves(groups, seed=0)
    assert {group for group, here in zip(groups, training, strict=True) if here}.isdisjoint(
        group for group, here in zip(groups, training, strict=True) if not here
    )
    assert 0.2 < training.mean() < 0.8 and not np.array_equal(training, halves(groups, seed=1))


def test_only_features_that_fire_and_are_silent_often_enough_are_drawn() -> None:
    fires = np.zeros((200, 5), dtype=bool)
    fires[::2, 0] = fires[:, 1] = fires[::50, 2] = fires[::3, 3] = True
    assert draw_features(fires, np.arange(200) < 100, 4, seed=0) == [0, 3]


@pytest.mark.parametrize(
    ("name", "text", "n"),
    [
        (["dog", "wolf"], "A DOG, not dogs.", 1),
        (["dog"], "hotdog", 0),
        (["?", "dog"], "A dog?", 2),
        (["天气"], "今天天气很好", 1),
        ([], "dog", 0),
    ],
)
def test_a_match_is_a_word_or_in_unspaced_scripts_a_part(name: list[str], text: str, n: int) -> None:
    assert matches(name, text) == n


def test_the_judge_counts_ties_half() -> None:
    assert judged(["dog"], ["a dog", "a cat"], ["a man", "a dog"]) == (0.5, 0.5, 0.5)
    assert judged(["dog"], ["dog"], ["man", "cat"]) == (1.0, 1.0, 1.0)
    assert judged([], ["dog"], ["man"]) == (0.5, 0.0, 1.0)


def test_a_summary_is_a_mean_with_its_interval() -> None:
    figures = np.tile(np.linspace(0, 1, 41)[:, None], (1, 3))
    mean, low, high = summary(figures, seed=0)["pairs"]
    assert mean == pytest.approx(0.5)
    assert 0.5 - low == pytest.approx(1.96 * figures[:, 0].std() / 41**0.5, rel=0.1) and high > 0.5
