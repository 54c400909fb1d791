"""Conditions have the names that stand in the files of a study."""

from __future__ import annotations

import pytest

from training.documents.condition import STUDY, Condition, Regime, trained_on_all


@pytest.mark.parametrize(
    ("condition", "name"),
    [
        (STUDY, ""),
        (Condition(Regime.SIZE, 128), "n=128"),
        (Condition(Regime.NOISE, 0.2), "noise=0.2"),
        (Condition(Regime.MINORITY, 0.05), "minority=0.05"),
        (Condition(Regime.TRANSFER, "en"), "train=en"),
        (Condition(Regime.TRANSFER), "train=all"),
    ],
)
def test_a_condition_has_its_name_in_files(condition: Condition, name: str) -> None:
    assert str(condition) == name


@pytest.mark.parametrize(
    ("values", "name"), [(["en"], "train=all"), (["en", "all"], "train=(all)"), (["all", "(all)"], "train=((all))")]
)
def test_training_on_all_values_is_called_as_no_value_is(values: list[str], name: str) -> None:
    assert str(trained_on_all(values)) == name
    assert trained_on_all(values) == Condition(Regime.TRANSFER)


def test_a_language_called_all_is_not_taken_for_training_on_all() -> None:
    assert Condition(Regime.TRANSFER, "all") != Condition(Regime.TRANSFER)
    assert Condition(Regime.SIZE, 2).is_transfer is False
