"""Pieces of a study: what is done is kept, what is cut off is done again, and where it ran makes no difference."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import make_spec
from tests.training.stores import SAE, build_store, make_documents
from training.evaluation import MethodOutcome, SourceTask, run_here, run_source
from training.study import run_study


class Counting:
    """The executor of one machine, remembering which methods it was given."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def __call__(self, tasks: Sequence[SourceTask]) -> Iterator[MethodOutcome]:
        for cell in run_here(tasks):
            self.ran.append(cell.method.name)
            yield cell


def backwards(tasks: Sequence[SourceTask]) -> Iterator[MethodOutcome]:
    """Another order, every piece sent through pickle as a cluster would."""
    for task in reversed(tasks):
        yield from reversed(list(run_source(pickle.loads(pickle.dumps(task)))))


def test_texts_go_only_where_they_are_read_and_what_pieces_share_is_one_object(tmp_path: Path) -> None:
    documents = make_documents(n=60)
    documents.text = [f"{text} {'x' * 20_000}" for text in documents.text]  # 1.2 MB
    tasks: list[SourceTask] = []

    def kept(given: Sequence[SourceTask]) -> Iterator[MethodOutcome]:
        tasks.extend(given)
        return run_here(given)

    features = [{"sae": SAE, "pool": ["max", "sum", "count"]}]
    baselines = ["tfidf", "char_ngrams", "hidden_mean", "majority"]
    store = build_store(tmp_path / "store", documents)
    split = {"seeds": 1, "folds": 2}
    run_study(make_spec(store, tmp_path / "out", features=features, baselines=baselines, split=split), executor=kept)
    assert {task.methods[0].kind for task in tasks if task.data.text is not None} == {"tfidf", "char"}
    assert len({id(task.data) for task in tasks}) == 2 and len({id(task.splits) for task in tasks}) == 1
    assert max(len(pickle.dumps(task)) for task in tasks if task.data.text is None) < 100_000


def test_what_stays_together_is_worked_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.sparse.csgraph as csgraph

    solved, solve = [], csgraph.connected_components
    monkeypatch.setattr(csgraph, "connected_components", lambda *a, **k: (solved.append(1), solve(*a, **k))[1])
    documents = make_documents(n=80, groups=40)
    documents.text[2:4] = documents.text[0:2]
    spec = make_spec(
        build_store(tmp_path / "store", documents), tmp_path / "out", split={"seeds": 3, "folds": 3, "group": "group"}
    )
    data = run_study(spec).data
    assert data.unit is data.unit and len(solved) <= 2  # before and after the documents have got their strata


def test_what_is_done_is_not_done_again_and_a_grown_grid_adds_to_it(tmp_path: Path, store: str) -> None:
    features = [{"sae": SAE, "pool": ["max"]}]
    first, second, third = Counting(), Counting(), Counting()
    before = run_study(make_spec(store, tmp_path / "out", features=features), executor=first)
    after = run_study(make_spec(store, tmp_path / "out", features=features), executor=second)
    assert len(first.ran) == 4
    assert second.ran == []
    assert before.rows == after.rows
    run_study(make_spec(store, tmp_path / "out", features=[{"sae": SAE, "pool": ["max", "sum"]}]), executor=third)
    assert third.ran == [f"{SAE}:sum"]


def test_another_split_uses_none_of_the_cells(tmp_path: Path, store: str) -> None:
    for change in ({}, {"split": {"seeds": 1, "folds": 3}}):
        counting = Counting()
        run_study(make_spec(store, tmp_path / "out", baselines=[], **change), executor=counting, overwrite=True)
        assert len(counting.ran) == 5


def test_only_what_changes_a_cell_computes_it_anew(tmp_path: Path, store: str) -> None:
    small = {"features": [{"sae": SAE}], "baselines": [], "split": {"seeds": 1, "folds": 2}, "bootstrap": 100}
    asked = {"operating_point": {"class": "spam", "recall": 0.8}, "by": "length", "refit": True, "calibrate": False}
    ran = []
    for change in ({}, asked, {"class_weight": "balanced"}, {}):
        counting = Counting()
        run_study(make_spec(store, tmp_path / "study", **{**small, **change}), executor=counting, overwrite=True)
        ran.append(len(counting.ran))
    assert ran == [2, 0, 1, 0]  # majority looks at no weight


def test_a_cell_that_was_cut_off_is_computed_again(tmp_path: Path, store: str) -> None:
    spec = make_spec(store, tmp_path / "out", baselines=[])
    before = run_study(spec)
    victim = sorted((tmp_path / "out" / "cells").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:100])
    counting = Counting()
    after = run_study(spec, executor=counting)
    assert len(counting.ran) == 1
    assert before.rows == after.rows


def test_order_and_place_of_the_pieces_change_no_byte(tmp_path: Path, store: str) -> None:
    written = []
    for name, executor in (("a", run_here), ("b", backwards)):
        run_study(make_spec(store, tmp_path / name), executor=executor)
        files = ("results.parquet", "predictions.parquet", "folds.parquet", "models/sae.safetensors")
        written.append([(tmp_path / name / file).read_bytes() for file in files])
    assert written[0] == written[1]


def test_a_stopped_study_goes_on_where_it_was(tmp_path: Path) -> None:
    store = build_store(tmp_path / "s", make_documents(90))

    def stopped(tasks: Sequence[SourceTask]) -> Iterator[MethodOutcome]:
        for number, cell in enumerate(run_here(tasks)):
            if number == 3:
                raise KeyboardInterrupt
            yield cell

    with pytest.raises(KeyboardInterrupt):
        run_study(make_spec(store, tmp_path / "out"), executor=stopped)
    counting = Counting()
    resumed = run_study(make_spec(store, tmp_path / "out"), executor=counting)
    assert len(counting.ran) == 7 - 3
    straight = run_study(make_spec(store, tmp_path / "other"))
    assert straight.rows == resumed.rows
    assert np.array_equal(straight.predictions[0][0].log_proba, resumed.predictions[0][0].log_proba)
