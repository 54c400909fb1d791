"""Names of dense columns are parsed as they are made."""

from __future__ import annotations

import pytest

from featurestore.base.dense_names import HIDDEN, dense_name, hook_name, parse_dense_name


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_name_that_was_made_is_parsed_again(kind: str) -> None:
    column = dense_name(hook_name("resid_post", 12), kind)
    assert column == f"resid_post_12__hidden_{kind}"
    assert parse_dense_name(column) == ("resid_post_12", kind)


@pytest.mark.parametrize(
    "column", ["l12_16k__max", "resid_post_9__hidden_max", "__hidden_mean", "a b__hidden_mean", ""]
)
def test_other_columns_are_no_hidden_states(column: str) -> None:
    assert parse_dense_name(column) is None
