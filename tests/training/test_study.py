"""The whole study on real stores: one split for everyone, selection without peeking, the same bytes each time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.preprocessing import MaxAbsScaler

from featurestore import FeatureStore
from featurestore.errors import StoreError, StudyError
from tests.training.conftest import make_spec
from tests.training.stores import PLANTED, SAE, build_store, make_documents
from training.results.records import StudyResult
from training.scores.metrics import auroc, macro_f1
from training.study import run_study

FILES = (
    "results.parquet",
    "predictions.parquet",
    "slices.parquet",
    "split.parquet",
    "folds.parquet",
    "regimes.parquet",
    "results.json",
    "explanation.json",
    "models/sae.json",
    "models/sae.safetensors",
)


def table(result: StudyResult, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(f"{result.spec.out}/{name}.parquet").to_pylist()
    return rows


def test_every_method_meets_the_same_test_documents(result: StudyResult) -> None:
    """In the reference code every feature file had another test set."""
    held_out = {seed: set() for seed in (0, 1)}
    for row in table(result, "split"):
        if row["role"] == "test":
            held_out[row["seed"]].add(row["doc_id"])
    met: dict[tuple[str, int], list[str]] = {}
    for row in table(result, "predictions"):
        met.setdefault((row["method"], row["seed"]), []).append(row["doc_id"])
    assert len(met) == 2 * len(result.summary)
    for (_, seed), ids in met.items():
        assert len(ids) == len(held_out[seed])  # each once
        assert set(ids) == held_out[seed]


def test_metrics_in_the_results_are_those_of_scikit_learn_on_the_predictions(result: StudyResult) -> None:
    answers: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in table(result, "predictions"):
        answers.setdefault((row["method"], row["seed"]), []).append(row)
    for row in table(result, "results"):
        mine = answers[row["method"], row["seed"]]
        y, y_pred = [r["y_true"] for r in mine], [r["y_pred"] for r in mine]
        assert row["macro_f1"] == pytest.approx(f1_score(y, y_pred, average="macro"))
        assert row["accuracy"] == pytest.approx(accuracy_score(y, y_pred))
        assert row["auroc"] == pytest.approx(roc_auc_score([v == "spam" for v in y], [r["score"][1] for r in mine]))


def test_a_cell_equals_a_direct_scikit_learn_fit_on_the_matrix_of_the_store(result: StudyResult) -> None:
    store = FeatureStore.open(result.spec.store)
    X, ids = store.matrix(SAE, pool="sum")
    labels = dict(zip(ids, store.documents().collect()["label"], strict=True))
    row = next(r for r in result.rows if r.method == f"{SAE}:sum" and r.seed == 1)
    assert row.C is not None
    roles = {r["doc_id"]: r["role"] for r in table(result, "split") if r["seed"] == 1}
    train = np.array([roles[i] == "train" for i in ids])
    y = np.array([labels[i] for i in ids])
    scale = MaxAbsScaler().fit(X[train].astype(np.float64))
    direct = LogisticRegression(C=row.C, tol=1e-8, max_iter=5000).fit(scale.transform(X[train]), y[train])
    expected = dict(zip(ids[~train], direct.predict_proba(scale.transform(X[~train]))[:, 1], strict=True))
    ours = {
        r["doc_id"]: np.exp(r["score"][1])
        for r in table(result, "predictions")
        if (r["method"], r["seed"]) == (row.method, 1)
    }
    # The rows come in another order and the solvers stop at different tolerances.
    assert ours == pytest.approx(expected, abs=2e-3)


def test_the_selected_cell_is_the_best_on_validation_and_test_scores_play_no_part(result: StudyResult) -> None:
    """The reference code reported the configuration that did best on the test set."""
    for family in ("sae", "baseline"):
        for seed in (0, 1):
            cells = [r for r in result.rows if r.seed == seed and (r.kind == "sae") == (family == "sae")]
            chosen = [r for r in cells if r.selected]
            best = max(cells, key=lambda r: r.validation_macro_f1)  # the first of equals
            assert [r.method for r in chosen] == [best.method] == [result.selected[family].members[seed]]


def test_flipping_all_test_labels_changes_no_selection_and_no_explanation(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = run_study(make_spec(store, tmp_path / "honest", split={"seeds": 1, "folds": 3}))
    flipped = np.where(honest.splits[0].fold == -1, 1 - honest.data.y, honest.data.y)
    from dataclasses import replace

    import training.study as study

    monkeypatch.setattr(study, "make_splits", lambda data, spec: honest.splits)  # the frozen split is kept
    monkeypatch.setattr(study, "load_documents", lambda store, spec, others: replace(honest.data, y=flipped))
    peeked = run_study(make_spec(store, tmp_path / "flipped", split={"seeds": 1, "folds": 3}))
    for before, after in zip(honest.rows, peeked.rows, strict=True):
        assert (before.C, before.validation_macro_f1, before.selected) == (
            after.C,
            after.validation_macro_f1,
            after.selected,
        )
        assert before.accuracy == pytest.approx(1 - after.accuracy)
    assert honest.explanation is not None
    assert peeked.explanation is not None
    assert honest.explanation["features"] == peeked.explanation["features"]


def test_a_rerun_replaces_its_files_with_the_same_bytes_and_appends_nothing(tmp_path: Path, store: str) -> None:
    """In the reference code a rerun appended duplicate rows, which leaked from training into test."""
    spec = make_spec(store, tmp_path / "study")
    contents = []
    for n_jobs in (1, 2, 1):  # nor does the number of threads change a bit
        shutil.rmtree(tmp_path / "study" / "cells", ignore_errors=True)  # what is done would not be done again
        run_study(spec, n_jobs=n_jobs)
        contents.append({name: (tmp_path / "study" / name).read_bytes() for name in FILES})
    assert contents[0] == contents[1] == contents[2]
    written = [p.relative_to(tmp_path / "study") for p in (tmp_path / "study").rglob("*") if p.is_file()]
    assert sorted(str(p) for p in written if p.parts[0] != "cells") == sorted(FILES)


def test_row_order_of_the_store_changes_nothing(tmp_path: Path) -> None:
    documents = make_documents(n=90)
    order = np.random.default_rng(5).permutation(90).tolist()
    features = [{"sae": SAE, "pool": "max"}]
    found = []
    for name, rows, units in (("a", None, 1), ("b", order, 4)):
        store = build_store(tmp_path / name, documents, order=rows, units=units)
        result = run_study(make_spec(store, tmp_path / f"{name}-out", features=features))
        found.append((result, (tmp_path / f"{name}-out" / "predictions.parquet").read_bytes()))
    (one, one_bytes), (other, other_bytes) = found
    assert one.split_sha256 == other.split_sha256
    assert one.rows == other.rows
    assert one.summary == other.summary
    assert one_bytes == other_bytes
    assert one.explanation == other.explanation


def test_a_cell_does_not_feel_which_other_cells_run(tmp_path: Path, store: str, result: StudyResult) -> None:
    features = [{"sae": SAE, "pool": "sum", "binarize": 0.0}]
    alone = run_study(make_spec(store, tmp_path / "alone", features=features, baselines=[]))
    name = f"{SAE}:sum>0"
    for before, after in zip(
        (r for r in result.rows if r.method == name), (r for r in alone.rows if r.method == name), strict=True
    ):
        assert {**vars(before), "selected": True} == vars(after)
    both = [next(m for m in r.summary if m.method == name) for r in (result, alone)]
    assert (both[0].macro_f1, both[0].auroc) == (both[1].macro_f1, both[1].auroc)


def test_a_planted_feature_is_found_first_and_its_class_named(result: StudyResult) -> None:
    assert result.explanation is not None
    first, second = result.explanation["features"][:2]
    assert {(first["feature"], first["toward"]), (second["feature"], second["toward"])} == {
        (PLANTED[0], "ham"),
        (PLANTED[1], "spam"),
    }


def test_permuted_labels_give_chance_within_the_interval(tmp_path: Path) -> None:
    documents = make_documents(n=150)
    documents.label = np.random.default_rng(3).permutation(documents.label).tolist()
    found = run_study(make_spec(build_store(tmp_path / "s", documents), tmp_path / "out"))
    for method in found.summary:
        if method.kind != "majority":
            assert method.auroc.low <= 0.5 <= method.auroc.high, method
    assert found.headline is not None
    difference = found.headline.comparison.difference
    assert difference.low <= 0 <= difference.high


def test_more_than_two_classes_work_throughout(tmp_path: Path) -> None:
    store = build_store(tmp_path / "s", make_documents(n=150, classes=("a", "b", "c"), strength=0.9))
    found = run_study(make_spec(store, tmp_path / "out"))
    assert found.selected["sae"].macro_f1.low > 0.5
    assert found.selected["sae"].auroc.value > 0.8
    assert found.explanation is not None
    top = {(f["feature"], f["toward"]) for f in found.explanation["features"][:3]}
    assert top == {(PLANTED[0], "a"), (PLANTED[1], "b"), (PLANTED[2], "c")}
    for answer, row in zip((p for seeds in found.predictions for p in seeds), found.rows, strict=True):
        assert row.macro_f1 == macro_f1(answer.y_true, answer.y_pred, 3)
        assert row.auroc == auroc(answer.y_true, answer.log_proba)[0]


def test_groups_are_kept_whole_and_resampled_whole(tmp_path: Path) -> None:
    store = build_store(tmp_path / "s", make_documents(n=160, groups=40))
    found = run_study(make_spec(store, tmp_path / "out", split={"group": "group", "seeds": 2, "folds": 3}))
    assert found.data.group is not None
    for split in found.splits:
        assert not set(found.data.group[split.test]) & set(found.data.group[split.train])
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["documents"]["groups"] == 40
    assert written["intervals"]["resampled"] == "groups (group)"


def test_a_directory_that_is_no_store_and_a_store_still_incomplete_are_refused(tmp_path: Path, store: str) -> None:
    with pytest.raises(StoreError, match="no store"):
        run_study(make_spec(str(tmp_path / "nothing"), tmp_path / "out"))
    shutil.copytree(store, tmp_path / "half")
    (tmp_path / "half" / "manifest.json").unlink()
    next((tmp_path / "half" / "parts").glob("*.parquet")).unlink()
    with pytest.raises(StoreError, match="incomplete: 2 of 3 units"):
        run_study(make_spec(str(tmp_path / "half"), tmp_path / "out"))


def test_a_broken_cell_stops_the_study_also_when_processes_run(tmp_path: Path, store: str) -> None:
    features = [{"sae": SAE, "pool": ["max", "sum", "count"], "binarize": [None, 1.0, 1e6]}]
    for n_jobs in (1, 2):
        with pytest.raises(StudyError, match="no feature fires"):
            run_study(make_spec(store, tmp_path / "out", features=features), n_jobs=n_jobs)
    # What is done is kept, with the split that it is of, and no result is written.
    assert {p.name for p in (tmp_path / "out").iterdir()} <= {"cells", "split.parquet"}
