"""Screened while streaming: the same final model as selecting from the whole matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featurestore import FeatureStore
from tests.training.conftest import make_spec
from tests.training.stores import SAE, build_store, make_documents
from training.cells import plan_sources, read_source
from training.features import plan_methods
from training.labels import load_documents
from training.report import format_study
from training.split import make_splits
from training.study import run_study

FEATURES = [{"sae": SAE, "pool": ["max"], "binarize": [None, 1.0], "scale": ["max_abs", "sqrt"]}]


def test_a_screened_study_scores_what_selection_from_the_whole_matrix_scores(tmp_path: Path) -> None:
    store = build_store(tmp_path / "s", make_documents(150), order=np.random.default_rng(1).permutation(150).tolist())
    select = [{**FEATURES[0], "select": {"by": "class_means", "k": 12}}]
    whole = run_study(make_spec(store, tmp_path / "whole", features=select, baselines=[]))
    screened = run_study(make_spec(store, tmp_path / "screened", features=FEATURES, baselines=[], screen=12))
    pairs = [(a, b) for a, b in zip(whole.rows, screened.rows, strict=True) if a.kind == "sae"]
    assert len(pairs) == 8
    for a, b in pairs:
        assert b.n_features <= a.n_features
        assert (a.C, a.validation_macro_f1) == (b.C, pytest.approx(b.validation_macro_f1, abs=0.02))
        assert a.macro_f1 == b.macro_f1
        assert a.auroc == pytest.approx(b.auroc, abs=1e-9)
    assert "features were screened while they streamed by" in format_study(screened)


def test_only_columns_that_pass_are_ever_held(tmp_path: Path) -> None:
    store = FeatureStore.open(build_store(tmp_path / "s", make_documents(150), units=5))
    spec = make_spec(store.uri, tmp_path / "out", features=[{"sae": SAE, "pool": "max"}], baselines=[], screen=5)
    data = load_documents(store, spec)
    splits = make_splits(data, spec.split)
    methods = [m for m in plan_methods(store, spec) if m.kind == "sae"]
    (task,) = plan_sources(methods, store.uri, data, splits, 1, spec.screen)
    matrix = read_source(store, task)
    assert 5 <= matrix.X.shape[1] <= 5 * 4 * len(splits)
    full = store.matrix(SAE, pool="max").X[data.position]
    assert matrix.column is not None
    assert (full[:, matrix.column] != matrix.X).nnz == 0
