"""The frozen split: stratified, whole groups, the same for everyone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import FeatureStore
from featurestore.errors import StudyError
from tests.training.conftest import make_spec
from tests.training.stores import build_store, make_documents
from training.labels import StudyData, load_documents
from training.spec import SplitSpec
from training.split import make_splits, split_sha256, split_table


def data_of(y: list[int], group: list[int] | None = None) -> StudyData:
    n = len(y)
    return StudyData(
        position=np.arange(n),
        doc_id=np.array([f"d{i}" for i in range(n)], dtype=object),
        y=np.array(y),
        classes=tuple(f"c{c}" for c in range(max(y) + 1)),
        group=None if group is None else np.unique(group, return_inverse=True)[1],
        text=None,
        rows=n,
        left_out={},
        truncated=0,
    )


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(8, 40), min_size=2, max_size=4),
    folds=st.integers(2, 6),
    test=st.sampled_from([0.2, 0.25, 0.5]),
)
def test_each_document_is_held_out_or_in_one_fold_and_classes_keep_their_shares(
    sizes: list[int], folds: int, test: float
) -> None:
    data = data_of([c for c, size in enumerate(sizes) for _ in range(size)])
    for split in make_splits(data, SplitSpec(test=test, folds=folds, seeds=2)):
        assert sorted([*split.test, *split.train]) == list(range(len(data.y)))
        for fit, validate in split.inner():
            assert sorted([*fit, *validate]) == split.train.tolist()
        for c, size in enumerate(sizes):
            assert abs((data.y[split.test] == c).sum() - test * size) <= 1
            in_folds = [(data.y[validate] == c).sum() for _, validate in split.inner()]
            assert max(in_folds) - min(in_folds) <= 1


def test_groups_are_never_on_two_sides_of_a_split_or_of_a_fold() -> None:
    group = [i // 7 for i in range(210)]
    data = data_of([(i // 7) % 2 for i in range(210)], group)
    assert data.group is not None
    splits = make_splits(data, SplitSpec(seeds=3))
    for split in splits:
        for part, rest in [(split.test, split.train), *split.inner()]:
            assert not set(data.group[part]) & set(data.group[rest])
        assert 0.15 < len(split.test) / 210 < 0.25
    assert len({tuple(split.test) for split in splits}) == 3


def test_seeds_hold_out_different_groups_even_when_sizes_leave_nothing_to_shuffle() -> None:
    group = np.repeat(np.arange(40), np.arange(1, 41)).tolist()  # every group has a size of its own
    data = data_of([g % 2 for g in group], group)
    splits = make_splits(data, SplitSpec(seeds=5))
    assert len({tuple(split.test) for split in splits}) == 5


def test_the_split_is_the_same_whatever_the_row_order_of_the_store(tmp_path: Path) -> None:
    """The reference code drew a seeded split over rows in process-completion order: another test set each time."""
    documents = make_documents(80, groups=40)
    frozen = set()
    for k, order in enumerate([range(80), np.random.default_rng(0).permutation(80), reversed(range(80))]):
        store = build_store(tmp_path / f"s{k}", documents, order=[int(i) for i in order], units=k + 1)
        spec = make_spec(store, tmp_path / "out", split={"group": "group", "folds": 3})
        data = load_documents(FeatureStore.open(store), spec)
        splits = make_splits(data, spec.split)
        table = split_table(data, splits)
        frozen.add((split_sha256(data, splits), str(table.to_pylist())))
    assert len(frozen) == 1


def test_the_hash_tells_splits_apart() -> None:
    data = data_of([0, 1] * 30)
    one, other = (make_splits(data, SplitSpec(folds=folds, seeds=1)) for folds in (3, 4))
    assert split_sha256(data, one) != split_sha256(data, other)


def test_the_table_lists_every_document_once_for_each_seed() -> None:
    data = data_of([0, 1] * 30)
    rows = split_table(data, make_splits(data, SplitSpec(seeds=2, folds=3))).to_pylist()
    assert len(rows) == len({(row["doc_id"], row["seed"]) for row in rows}) == 120
    assert all((row["fold"] is None) == (row["role"] == "test") for row in rows)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (data_of([0] * 40 + [1]), "class 'c1' has 1 labelled document, but"),
        (data_of([0] * 40 + [1] * 3), "class 'c1' has 3 labelled documents, but a test set and 5 folds need 6"),
        (data_of([0] * 40 + [1] * 40, [i // 20 for i in range(80)]), "class 'c0' has 2 groups"),
    ],
)
def test_a_class_too_small_for_the_folds_is_named(data: StudyData, sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        make_splits(data, SplitSpec())
