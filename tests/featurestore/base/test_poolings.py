"""Which names are poolings, in which order, and what each is."""

from __future__ import annotations

import pytest

from featurestore.base.poolings import is_count_pool, is_pool, is_readable, pool_order, stored_pool, top_size


@pytest.mark.parametrize("pool", ["max", "sum", "count", "last", "top1", "top20", "top9999999999"])
def test_stored_poolings_can_be_stored_and_read(pool: str) -> None:
    assert is_pool(pool) and is_readable(pool) and stored_pool(pool) == pool


def test_a_mean_is_read_from_the_sum_and_never_stored() -> None:
    assert is_readable("mean") and not is_pool("mean") and stored_pool("mean") == "sum"


@pytest.mark.parametrize("pool", ["", "Max", "top", "top0", "top-1", "top1 ", "top٣", "top" + "9" * 5000, "binary"])
def test_no_other_name_is_a_pooling(pool: str) -> None:
    assert not is_pool(pool) and not is_readable(pool) and top_size(pool) is None


def test_counts_are_told_from_activations() -> None:
    assert [pool for pool in ("max", "sum", "count", "last", "top3") if is_count_pool(pool)] == ["count", "top3"]


def test_poolings_have_one_order_and_tops_go_by_their_size() -> None:
    assert sorted(["top20", "last", "top3", "sum", "max", "count"], key=pool_order) == [
        "max",
        "sum",
        "count",
        "last",
        "top3",
        "top20",
    ]
