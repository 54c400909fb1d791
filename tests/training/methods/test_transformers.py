"""Transformers of SAE features: what scikit-learn asks of one, and what each is for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix, issparse
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from featurestore import FeatureStore
from featurestore.errors import StudyError
from tests.training.stores import PLANTED, SAE, Documents, build_store
from training.methods.transformers import (
    LearntThresholds,
    MaxScaler,
    MinDocuments,
    SaeFeatures,
    SelectTop,
    SquareRoot,
    feature_scores,
    top_mask,
)


@parametrize_with_checks(
    [LearntThresholds(), MaxScaler(), SquareRoot(), MinDocuments(), SelectTop(k=2), SelectTop(k=1, by="anova")]
)
def test_scikit_learns_own_checks_pass(estimator: Any, check: Any) -> None:
    check(estimator)


def problem(n: int = 120, k: int = 30, seed: int = 0) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    X = rng.gamma(1.0, size=(n, k)) * (rng.random((n, k)) < 0.3)
    X[:, 7] = (y == 1) * (rng.random(n) < 0.9)
    return csr_matrix(X), y


@pytest.mark.parametrize("transformer", [LearntThresholds(), MaxScaler(), SquareRoot(), MinDocuments(20), SelectTop(5)])
def test_sparse_stays_sparse_and_equals_dense(transformer: Any) -> None:
    X, y = problem()
    sparse = transformer.fit(X, y).transform(X)
    dense = transformer.fit(X.toarray(), y).transform(X.toarray())
    assert issparse(sparse)
    np.testing.assert_allclose(sparse.toarray(), dense)


def test_features_are_divided_by_what_scikit_learn_divides_by() -> None:
    X, _ = problem()
    rows = np.arange(0, 120, 3)
    theirs = MaxAbsScaler().fit(X[rows])
    assert (MaxScaler().fit_rows(X, rows).scale_ == theirs.scale_).all()
    assert (MaxScaler().fit(X[rows]).transform(X) != theirs.transform(X)).nnz == 0


def test_a_learnt_threshold_is_the_median_of_what_fires_in_the_fitted_rows() -> None:
    X, _ = problem()
    fitted = LearntThresholds().fit(X[:60])
    dense = X[:60].toarray()
    for j in range(dense.shape[1]):
        values = np.sort(dense[:, j][dense[:, j] > 0])
        if len(set(values)) > 1:
            assert fitted.threshold_[j] == values[(len(values) - 1) // 2]
    assert set(np.unique(fitted.transform(X).data)) == {1.0}


@pytest.mark.parametrize("by", ["class_means", "anova", "l1"])
def test_a_planted_feature_is_selected_first(by: str) -> None:
    X, y = problem()
    assert np.flatnonzero(SelectTop(1, by).fit(X, y).get_support()).tolist() == [7]


def test_scores_equal_independent_computations() -> None:
    X, y = problem()
    dense = X.toarray()
    gap = [max(abs(dense[y == c, j].mean() - dense[y != c, j].mean()) for c in range(3)) for j in range(X.shape[1])]
    np.testing.assert_allclose(feature_scores(X, y, "class_means"), gap)
    np.testing.assert_allclose(feature_scores(X, y, "anova"), f_classif(dense, y)[0])
    best = [
        LogisticRegression(C=0.1, l1_ratio=1, solver="saga", tol=1e-6, max_iter=20_000).fit(dense, y == c)
        for c in range(3)
    ]
    weights = np.abs(np.vstack([model.coef_ for model in best])).max(axis=0)
    # Two solvers of one problem; liblinear's intercept is penalised a little.
    np.testing.assert_allclose(feature_scores(X, y, "l1"), weights, atol=0.02)


def test_equal_scores_keep_the_lower_columns() -> None:
    assert np.flatnonzero(top_mask(np.array([1.0, 2.0, 1.0, 1.0]), 3)).tolist() == [0, 1, 2]


def test_names_say_sae_and_feature_through_a_whole_pipeline(store: str, documents: Documents) -> None:
    opened = FeatureStore.open(store)
    y = np.array(documents.label)
    pipeline = make_pipeline(SaeFeatures(opened, [SAE], "max"), MinDocuments(2), SelectTop(2)).fit(documents.ids, y)
    assert set(pipeline.get_feature_names_out()) == {f"{SAE}:{PLANTED[0]}", f"{SAE}:{PLANTED[1]}"}
    assert pipeline.transform(documents.ids[:5]).shape == (5, 2)


def test_rows_come_in_the_order_of_the_ids_that_are_asked_for(store: str, documents: Documents) -> None:
    features = SaeFeatures(FeatureStore.open(store), [SAE, SAE], "max").fit()
    X = features.transform(documents.ids[::-1][:4])
    assert X.shape == (4, 192)  # two SAEs side by side
    for i in range(4):
        assert set(X[i].indices[X[i].indices < 96]) == set(documents.features[-1 - i])
    with pytest.raises(StudyError, match="has no document 'nobody'"):
        features.transform(["nobody"])
    with pytest.raises(StudyError, match="ids are text or numbers, not lists"):
        features.transform([["doc-0"]])


def test_documents_may_be_asked_for_by_numbers(tmp_path: Path, documents: Documents) -> None:
    numbered = replace(documents, ids=[str(i) for i in range(len(documents.ids))])
    features = SaeFeatures(FeatureStore.open(build_store(tmp_path / "store", numbered)), [SAE], "max").fit()
    assert (features.transform(np.array([7, 3])) != features.transform(["7", "3.0"])).nnz == 0
