"""Screened while streaming: the same final model as selecting from the whole matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from featurestore import FeatureStore
from featurestore.errors import StudyError
from featurestore.models.model import load_model
from tests.training.conftest import make_spec
from tests.training.stores import SAE, build_store, make_documents
from training.documents.labels import load_documents
from training.documents.split import make_splits
from training.evaluation import plan_sources, read_source
from training.methods.matrices import derive, load_matrix, load_pooled
from training.methods.method import SPARSE, Method
from training.methods.plan import plan_methods
from training.output.printed import format_study
from training.probes.fit import evaluate, fit_final
from training.probes.folds import Labelled
from training.spec import PROBES
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


def test_a_refitted_model_of_a_screened_study_is_selected_from_the_whole_matrix(
    tmp_path: Path,
) -> None:
    store = FeatureStore.open(build_store(tmp_path / "s", make_documents(120)))
    small = {"features": [{"sae": SAE}], "baselines": [], "split": {"seeds": 1, "folds": 2}, "bootstrap": 100}
    screened = run_study(make_spec(store.uri, tmp_path / "screened", **small, screen=6, refit=True))
    model = load_model(screened.paths["model_sae"])
    method, data = Method("m", "sae", SAE, "max", select="class_means", k=6), screened.data
    matrix = load_matrix(store, method, data)
    whole = fit_final(method, Labelled(matrix.X, data.y, 2), np.arange(len(data.y)), model.header["value"])
    assert matrix.column is not None and whole.columns is not None
    assert model.tensors["columns"].tolist() == matrix.column[whole.columns.kept].tolist()
    assert model.tensors["coef"] == pytest.approx(whole.probe.tensors["coef"], abs=1e-6)


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


def table(other: str, thresholds: list[Any]) -> list[dict[str, Any]]:
    """Features x select x binarize x scale x min_documents x several SAEs x control x another store."""
    choices: dict[str, Any] = {
        "binarize": thresholds,
        "scale": ["max_abs", "sqrt"],
        "select": [None, *({"by": by, "k": 5} for by in ("class_means", "anova", "l1", "random"))],
    }
    sources: list[dict[str, Any]] = [
        {"sae": SAE},
        {"sae": ["l2_tiny", SAE], "store": other, "control": True},
    ]
    return [{**source, **choices, "min_documents": n} for source in sources for n in (1, 4)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("stores")
    documents, saes = make_documents(48), (SAE, "l2_tiny")
    return build_store(root / "s", documents, saes=saes), build_store(
        root / "o", documents, range(47, -1, -1), saes=saes
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_every_combination_of_keys_screened_scores_what_the_whole_matrix_scores(
    stores: tuple[str, str], tmp_path: Path
) -> None:
    store, other = (FeatureStore.open(uri) for uri in stores)
    changes = {"features": table(other.uri, [None, 1.0]), "baselines": [], "screen": 8}
    spec = make_spec(store.uri, tmp_path / "out", split={"seeds": 2, "folds": 2}, **changes)
    data = load_documents(store, spec, (other,))
    splits = make_splits(data, spec.split)
    methods = plan_methods(store, spec, {other.uri: other})
    compared = 0
    for task in plan_sources([m for m in methods if m.kind in SPARSE], store.uri, data, splits, 1, spec.screen):
        source = FeatureStore.open(task.store)
        screened, whole = read_source(source, task), load_pooled(source, task.methods[0], data)
        assert screened.X.shape[1] < whole.X.shape[1]
        for method in task.methods:
            with threadpool_limits(1):  # as `run_source` does
                outcomes = [
                    evaluate(method, derive(read, method), data.y, 2, splits, [1.0]) for read in (screened, whole)
                ]
            for one, same in zip(*outcomes, strict=True):
                assert one.y_pred.tolist() == same.y_pred.tolist(), method
                assert one.validation == pytest.approx(same.validation), method
            compared += 1
    assert compared == 2 * 2 * 2 * 2 * 5


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("screen", [None, pytest.param(8, marks=pytest.mark.slow)])
def test_every_probe_gives_a_study_of_them(stores: tuple[str, str], tmp_path: Path, screen: int | None) -> None:
    few = {"scale": "sqrt", "select": [None, {"by": "anova", "k": 3}]}
    features = [{**feature, **few} for feature in table(stores[1], [1.0 if screen else "learnt"])]
    changes = {"baselines": ["hidden_mean"], "probes": list(PROBES), "split": {"seeds": 1, "folds": 2}}
    result = run_study(make_spec(stores[0], tmp_path / "out", features=features, screen=screen, **changes))
    assert len(result.rows) == 1 + len(PROBES) * (1 + 2 * 2 * 2)
    assert all(np.isfinite(row.macro_f1) for row in result.rows)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("screen", [None, 8])
@pytest.mark.parametrize("sae", [SAE, [SAE, "l2_tiny"]])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"min_documents": 1000}, r"no feature fires in 1,000 of the \d+ documents of a fit \(the commonest in \d+\)"),
        ({"min_documents": 40, "binarize": 1.0, "select": {"by": "l1", "k": 4}}, "no feature fires in 40 of the"),
        ({"binarize": 1e6}, "no feature fires for any document; lower the threshold"),
        ({"binarize": 1e6, "min_documents": 5}, "no feature fires for any document; lower the threshold"),
    ],
)
def test_a_combination_that_leaves_no_feature_is_refused_in_one_sentence(
    stores: tuple[str, str], tmp_path: Path, screen: int | None, sae: Any, changes: dict[str, Any], sentence: str
) -> None:
    features = [{"sae": sae, **changes}]
    with pytest.raises(StudyError, match=sentence) as refused:
        run_study(make_spec(stores[0], tmp_path / "out", features=features, baselines=[], screen=screen))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("feature", "sentence"),
    [
        ({"binarize": "learnt"}, "'screen' streams features by and cannot learn thresholds"),
        ({"select": {"k": 9}}, "select keeps 9 features, but 'screen' lets 8 pass; lower 'k' or raise 'screen'"),
    ],
)
def test_what_cannot_be_screened_is_refused(tmp_path: Path, feature: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        make_spec("store", tmp_path / "out", features=[{"sae": SAE, **feature}], screen=8)
