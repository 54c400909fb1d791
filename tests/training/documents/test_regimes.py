"""Harder conditions change what is trained on and nothing else; given and crossed splits hold out what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import StudyError
from tests.training.conftest import make_spec
from tests.training.documents.test_split import data_of
from tests.training.stores import SAE, build_store, make_documents
from training.documents.condition import Regime
from training.documents.labels import StudyData
from training.documents.regimes import make_conditions
from training.documents.split import make_splits, split_table, straddling
from training.documents.transfer import with_strata
from training.output.printed import format_study
from training.report.study_page import study_report
from training.spec import GivenSplit, SplitSpec, StudySpec, study_from_mapping
from training.study import run_study


def spec_of(**changes: Any) -> StudySpec:
    return study_from_mapping({"store": "s", "label": "label", "baselines": ["majority"], **changes}, ".")


def with_language(n: int = 200) -> StudyData:
    data = data_of([i % 2 for i in range(n)])
    return replace(data, columns={"lang": np.array(["en" if i % 4 < 2 else "de" for i in range(n)], dtype=object)})


def test_every_condition_meets_the_test_documents_of_its_split() -> None:
    data = with_language()
    spec = spec_of(
        split={"seeds": 2, "folds": 3},
        regimes={"train_sizes": [20, 80], "label_noise": [0.3], "minority_share": [0.1]},
        transfer={"by": "lang"},
    )
    splits = make_splits(data, spec.split)
    conditions = make_conditions(data, splits, spec)
    assert len(conditions) == 2 * (2 + 1 + 1 + 2)
    for condition in conditions:
        parent = next(s for s in splits if s.seed == condition.seed)
        assert (condition.test == parent.test).all()
        assert set(condition.train) <= set(parent.train)


def test_sizes_are_nested_stratified_and_exact() -> None:
    data = with_language()
    spec = spec_of(split={"seeds": 1, "folds": 3}, regimes={"train_sizes": [20, 80]})
    small, large = make_conditions(data, make_splits(data, spec.split), spec)
    assert (len(small.train), len(large.train)) == (20, 80)
    assert set(small.train) <= set(large.train)
    assert np.bincount(data.y[small.train]).tolist() == [10, 10]


@pytest.mark.slow
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), n_classes=st.integers(2, 4), folds=st.integers(2, 6))
def test_no_harder_training_set_is_refused_by_the_luck_of_a_seed(seed: int, n_classes: int, folds: int) -> None:
    rng = np.random.default_rng(seed)
    scarce = np.repeat(np.arange(n_classes), folds + 1)
    y = np.concatenate([scarce, rng.choice(n_classes, 60, p=rng.dirichlet(np.ones(n_classes)))])
    lang = np.array(["en"] * len(y), dtype=object)
    lang[rng.permutation(len(y))[: len(y) // 2]] = "de"
    lang[: len(scarce)] = np.tile(["en", "de"], len(scarce))[: len(scarce)]
    data = replace(data_of(y.tolist()), columns={"lang": lang})
    for changes in (
        {"regimes": {"train_sizes": [2 * n_classes, 20]}},
        {"regimes": {"label_noise": [0.3]}},
        {"transfer": {"by": "lang"}},
    ):
        spec = spec_of(split={"seeds": 3, "folds": folds}, **changes)
        try:
            data = with_strata(data, spec)
            splits = make_splits(data, spec.split)
        except StudyError as refused:  # before anything is drawn
            assert str(refused).startswith("transfer: ")
            continue
        for condition in make_conditions(data, splits, spec):
            seen = data.y if condition.y_train is None else condition.y_train
            for fit, validate in condition.inner():
                assert len(validate)
                assert set(seen[fit]) == set(range(n_classes))
            if condition.condition.regime is Regime.SIZE:
                assert len(condition.train) == condition.condition.level


def test_few_documents_of_a_class_come_from_as_many_inner_folds() -> None:
    data = data_of([0] * 90 + [1] * 90)
    spec = spec_of(split={"seeds": 5, "folds": 5}, regimes={"train_sizes": [10], "minority_share": [0.065]})
    for condition in make_conditions(data, make_splits(data, spec.split), spec):
        assert [set(data.y[validate]) for _, validate in condition.inner()] == [{0, 1}] * 5


def test_noise_flips_its_share_of_training_labels_and_no_test_label() -> None:
    data = with_language()
    spec = spec_of(split={"seeds": 1, "folds": 3}, regimes={"label_noise": [0.25]})
    (noisy,) = make_conditions(data, make_splits(data, spec.split), spec)
    assert noisy.y_train is not None
    wrong = np.flatnonzero(noisy.y_train != data.y)
    assert len(wrong) == round(0.25 * len(noisy.train))
    assert set(wrong) <= set(noisy.train)


def test_the_table_of_splits_says_what_every_regime_trains_on() -> None:
    data = with_language()
    spec = spec_of(split={"seeds": 1, "folds": 3}, regimes={"label_noise": [0.25], "train_sizes": [20]})
    splits = make_splits(data, spec.split)
    conditions = make_conditions(data, splits, spec)
    rows = split_table(data, [*splits, *conditions]).to_pylist()
    assert len(rows) == 3 * len(data.doc_id)
    for condition in (*splits, *conditions):
        mine = [row for row in rows if row["condition"] == str(condition.condition)]
        seen = data.y if condition.y_train is None else condition.y_train
        assert [row["label"] for row in mine] == [data.classes[c] for c in seen]
        assert [row["role"] == "train" for row in mine] == (condition.fold >= 0).tolist()


def test_the_rarest_class_is_thinned_to_its_share() -> None:
    data = with_language()
    spec = spec_of(split={"seeds": 1, "folds": 3}, regimes={"minority_share": [0.2]})
    (thinned,) = make_conditions(data, make_splits(data, spec.split), spec)
    assert np.bincount(data.y[thinned.train])[0] / len(thinned.train) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"regimes": {"train_sizes": [5000]}}, "5000 is not below the 160 training documents"),
        ({"regimes": {"minority_share": [0.49]}, "labels": [0] * 180 + [1] * 20}, "cannot be thinned to 49.0%"),
        ({"transfer": {"by": "lang", "train": "fr"}}, "column 'lang' holds no 'fr'; it holds: de, en"),
        ({"regimes": {"train_sizes": [4]}, "labels": [0, 1, 2] * 66 + [0, 1]}, r"4 is too few for 3 classes .* to 6"),
        ({"regimes": {"minority_share": [0.01]}, "labels": [0] * 180 + [1] * 20}, "0.01 leaves 1 of 16 training"),
        ({"regimes": {"label_noise": [0.99]}, "labels": [0] * 180 + [1] * 20}, "0.99 of 160 training documents leaves"),
        (
            {"transfer": {"by": "lang"}, "labels": [1 if i in (0, 1, 2, 4, 5, 8) else 0 for i in range(200)]},
            "'de' has 1 document of class 'c1', but it takes 2 to train on it; name other",
        ),
    ],
)
def test_a_condition_that_cannot_be_is_one_sentence(change: dict[str, Any], sentence: str) -> None:
    data = with_language()
    if "labels" in change:
        data = replace(data, y=np.array(change["labels"]), classes=("c0", "c1", "c2")[: max(change.pop("labels")) + 1])
    spec = spec_of(split={"seeds": 1, "folds": 3}, **change)
    with pytest.raises(StudyError, match=sentence):
        make_conditions(data, make_splits(with_strata(data, spec), spec.split), spec)


def test_a_given_split_holds_out_what_the_column_says_and_trains_on_no_near_duplicate_of_it() -> None:
    n = 100
    part = np.array(["test" if i < 20 else "train" for i in range(n)], dtype=object)
    cluster = np.arange(n)
    cluster[50] = cluster[3]  # a training text that repeats a test text
    data = replace(
        data_of([i % 2 for i in range(n)]),
        columns={"part": part},
        text_cluster=np.unique(cluster, return_inverse=True)[1],
    )
    spec = SplitSpec(seeds=1, folds=3, column=GivenSplit(name="part"))
    (split,) = make_splits(data, spec)
    assert split.test.tolist() == list(range(20))
    assert 50 not in split.train
    assert len(split.train) == 79
    assert straddling(data, spec) == 1.0
    with pytest.raises(StudyError, match="none of the documents are held out by dev"):
        make_splits(data, SplitSpec(column=GivenSplit(name="part", test=("dev",))))


def test_crossing_holds_out_every_document_once_in_each_seed() -> None:
    data = data_of([i % 2 for i in range(90)], [i // 3 for i in range(90)])
    data = replace(data, y=np.array([(i // 3) % 2 for i in range(90)]))
    splits = make_splits(data, SplitSpec(seeds=2, folds=3, outer=4))
    assert len(splits) == 8
    for seed in (0, 1):
        held_out = np.concatenate([s.test for s in splits if s.seed == seed])
        assert sorted(held_out.tolist()) == list(range(90))


@pytest.mark.parametrize("grouped", [False, True])
def test_near_duplicates_are_never_on_two_sides(grouped: bool) -> None:
    rng = np.random.default_rng(0)
    cluster = np.unique(rng.integers(0, 80, 160), return_inverse=True)[1]
    group = [i // 2 for i in range(160)] if grouped else None
    data = replace(data_of([(i // 2) % 2 for i in range(160)], group), text_cluster=cluster)
    for spec in (SplitSpec(seeds=2, folds=2), SplitSpec(seeds=1, folds=2, outer=3)):
        careless = straddling(data, spec)
        assert careless is not None and careless > 3
        for split in make_splits(data, spec):
            for part, rest in [(split.test, split.train), *split.inner()]:
                assert not set(cluster[part]) & set(cluster[rest])


def test_a_planted_duplicate_is_caught_and_reported(tmp_path: Path) -> None:
    documents = make_documents(120)
    for i in range(0, 40, 2):  # twenty texts that come twice
        documents.text[i] = " ".join(documents.text[i].split() * 4 + [f"only{i}"] * 3)
        documents.text[i + 40] = f"{documents.text[i]}!"
        documents.label[i + 40] = documents.label[i]
    store = build_store(tmp_path / "s", documents)
    found = run_study(make_spec(store, tmp_path / "out"))
    assert found.straddling is not None and found.straddling > 1
    where = {doc_id: i for i, doc_id in enumerate(found.data.doc_id)}
    for split in found.splits:
        for i in range(0, 40, 2):
            a, b = (where[documents.ids[j]] for j in (i, i + 40))
            assert (split.fold[a] == -1) == (split.fold[b] == -1)
    assert "near-duplicate texts are kept on one side; otherwise" in format_study(found)


def test_shares_that_agree_in_six_digits_are_conditions_of_their_own() -> None:
    data = with_language()
    shares = {"label_noise": [0.2, 0.2000001, 0.1234567], "minority_share": [0.1, 0.1000001]}
    spec = spec_of(split={"seeds": 1, "folds": 3}, regimes=shares)
    conditions = make_conditions(data, make_splits(data, spec.split), spec)
    names = [str(split.condition) for split in conditions]
    assert names[:3] == ["noise=0.2", "noise=0.2000001", "noise=0.123457"]
    assert names[3:] == ["minority=0.1", "minority=0.1000001"]
    rows = split_table(data, conditions).to_pylist()
    assert {name: sum(row["condition"] == name for row in rows) for name in names} == dict.fromkeys(names, 200)


def test_a_page_has_a_row_of_its_own_for_each_share(tmp_path: Path) -> None:
    store = build_store(tmp_path / "s", make_documents(120, strength=0.9))
    spec = make_spec(store, tmp_path / "out", regimes={"label_noise": [0.2, 0.2000001]}, baselines=[])
    run_study(spec)
    page = study_report(spec.out).decode()
    assert [page.count(f'<tr><th scope="row">{share}</th>') for share in ("0", "0.2", "0.2000001")] == [1, 1, 1]


def test_features_of_another_store_are_aligned_by_id(tmp_path: Path) -> None:
    documents = make_documents(120)
    one = build_store(tmp_path / "one", documents)
    again = make_documents(120)
    for i in range(10):
        again.error[i], again.features[i], again.n_tokens[i] = "could not be read", {}, 0
    other = build_store(tmp_path / "other", again, order=np.random.default_rng(0).permutation(120).tolist())
    features = [{"sae": SAE, "pool": "max"}, {"sae": SAE, "pool": "max", "store": other}]
    found = run_study(make_spec(one, tmp_path / "out", features=features, baselines=[]))
    assert found.data.left_out["elsewhere"] == 10
    mine, theirs = (m for m in found.summary if m.kind == "sae")
    assert (mine.method, theirs.method) == (f"{SAE}:max", f"other/{SAE}:max")
    assert mine.macro_f1 == theirs.macro_f1  # the same documents in another order
