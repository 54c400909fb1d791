"""Every method's matrix, read from a real store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.errors import StudyError
from tests.training.conftest import make_spec
from tests.training.stores import HOOK, SAE, Documents, build_store, make_documents
from training.documents.labels import load_documents
from training.methods.matrices import load_matrix
from training.methods.method import Method
from training.methods.plan import plan_methods
from training.methods.preparation import scaler


def test_methods_are_the_baselines_and_every_pooling_with_every_threshold(store: str, tmp_path: Path) -> None:
    features = [{"sae": SAE, "pool": ["max", "mean"], "binarize": [None, 1.5]}]
    spec = make_spec(store, tmp_path / "out", features=features, baselines=["hidden_last", "tfidf"])
    methods = plan_methods(FeatureStore.open(store), spec)
    assert [m.name for m in methods] == [
        "majority",
        "tfidf",
        "hidden_last",
        f"{SAE}:max",
        f"{SAE}:max>1.5",
        f"{SAE}:mean",
        f"{SAE}:mean>1.5",
    ]
    assert methods[2].column == f"{HOOK}__hidden_last"


def test_a_cell_holds_the_pooled_values_of_its_documents_and_only_columns_that_fire(
    store: str, documents: Documents, tmp_path: Path
) -> None:
    opened = FeatureStore.open(store)
    data = load_documents(opened, make_spec(store, tmp_path / "out"))
    by_id = dict(zip(documents.ids, documents.features, strict=True))
    for pool, threshold in (("max", None), ("max", 1.0), ("count", 2.0)):
        matrix = load_matrix(opened, Method("m", "sae", SAE, pool, threshold), data)
        assert matrix.column is not None
        assert (matrix.X != 0).sum(axis=0).min() > 0
        for i in (0, 50, 149):
            full = np.zeros(96)
            full[matrix.column] = matrix.X[i].toarray().ravel()
            for f, (peak, count) in by_id[data.doc_id[i]].items():
                value = peak if pool == "max" else count
                expected = value if threshold is None else float(value > threshold)
                assert full[f] == pytest.approx(expected, rel=2**-8)  # stored with 8 significant bits
            assert np.count_nonzero(full) <= len(by_id[data.doc_id[i]])


def test_scaling_keeps_zeros_and_is_fitted_on_the_rows_it_is_given(store: str, tmp_path: Path) -> None:
    opened = FeatureStore.open(store)
    data = load_documents(opened, make_spec(store, tmp_path / "out"))
    X = load_matrix(opened, Method("m", "sae", SAE, "sum"), data).X
    scale = scaler("sae").fit(X[:40])
    assert scale.transform(X[:40]).max() == pytest.approx(1.0)
    assert scale.transform(X).nnz == X.nnz
    assert scale.transform(X).max() > 1.0  # rows that were not fitted may exceed the largest fitted value


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"features": [{"sae": "l9"}]}, f"has no SAE 'l9'; it has: {SAE}"),
        ({"features": [{"sae": SAE, "pool": "last"}]}, "has no pooling 'last' of SAE .*; it has: max, sum, count"),
    ],
)
def test_a_cell_that_the_store_lacks_is_named(
    store: str, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(StudyError, match=sentence):
        plan_methods(FeatureStore.open(store), make_spec(store, tmp_path / "out", **change))


def test_a_threshold_that_nothing_exceeds_is_refused(store: str, tmp_path: Path) -> None:
    opened = FeatureStore.open(store)
    data = load_documents(opened, make_spec(store, tmp_path / "out"))
    with pytest.raises(StudyError, match="no feature fires for any document; lower the threshold"):
        load_matrix(opened, Method("m", "sae", SAE, "max", 1e6), data)


def test_a_dense_baseline_that_the_store_lacks_says_how_to_get_it(tmp_path: Path) -> None:
    from featurestore.format.schema import SaeColumns, StoreSchema
    from featurestore.writing.writer import StorePlan, create_store, finish_store

    schema = StoreSchema(keep=(("label", "string"),), saes=(SaeColumns(SAE, 8, ("max",)),), dense=())
    create_store(str(tmp_path / "bare"), StorePlan(schema, {}, {}, [], 0, {}))
    finish_store(str(tmp_path / "bare"), [])
    store = FeatureStore.open(str(tmp_path / "bare"))
    with pytest.raises(StudyError, match=r"has no hidden_mean column .*extract again with 'hidden: \[mean\]'"):
        plan_methods(store, make_spec(store.uri, tmp_path / "out"))


def test_documents_without_tokens_never_reach_a_dense_matrix(tmp_path: Path) -> None:
    documents = make_documents(30)
    documents.n_tokens[3], documents.features[3] = 0, {}
    store = FeatureStore.open(build_store(tmp_path / "s", documents))
    data = load_documents(store, make_spec(store.uri, tmp_path / "out"))
    X = load_matrix(store, Method("h", "dense", column=f"{HOOK}__hidden_mean"), data).X
    assert X.shape == (29, 12)
    assert np.isfinite(X).all()


def two_called_store(tmp_path: Path) -> tuple[str, dict[str, FeatureStore]]:
    """A study's store, and two more of its documents whose last folder has the same name."""
    uris = [
        build_store(tmp_path / name, make_documents(20, seed=seed))
        for seed, name in enumerate(("own", "qwen/store", "llama/store"))
    ]
    return uris[0], {uri: FeatureStore.open(uri) for uri in uris[1:]}


def test_methods_of_stores_with_one_last_folder_have_names_of_their_own(tmp_path: Path) -> None:
    own, others = two_called_store(tmp_path)
    qwen, llama = others
    hidden = [{"hidden": ["mean"], "store": uri} for uri in (qwen, llama)]
    spec = make_spec(own, tmp_path / "out", baselines=hidden, features=[{"sae": SAE, "store": uri} for uri in others])
    assert [m.name for m in plan_methods(FeatureStore.open(own), spec, others)[1:]] == [
        "qwen/store/hidden_mean",
        "llama/store/hidden_mean",
        f"qwen/store/{SAE}:max",
        f"llama/store/{SAE}:max",
    ]
    # Where no two methods would have one name, they are called as ever.
    spec = make_spec(own, tmp_path / "out", baselines=hidden[:1], features=[{"sae": SAE, "store": llama}])
    assert [m.name for m in plan_methods(FeatureStore.open(own), spec, others)[1:]] == [
        "store/hidden_mean",
        f"store/{SAE}:max",
    ]


def test_thresholds_that_read_alike_are_written_with_all_digits(store: str, tmp_path: Path) -> None:
    def names(*thresholds: float) -> list[str]:
        spec = make_spec(store, tmp_path / "out", baselines=[], features=[{"sae": SAE, "binarize": thresholds}])
        return [m.name.removeprefix(f"{SAE}:max") for m in plan_methods(FeatureStore.open(store), spec)[1:]]

    assert names(0.1234567, 0.1234568, 1.5) == [">0.1234567", ">0.1234568", ">1.5"]
    assert names(0.1234567, 1.5) == [">0.123457", ">1.5"]


def test_a_method_that_is_asked_for_twice_is_refused_with_both_names(tmp_path: Path) -> None:
    own, others = two_called_store(tmp_path)
    qwen = {"sae": SAE, "store": next(iter(others))}
    for change, said in (
        ({"baselines": [qwen], "features": [qwen]}, f"features: method 'store/{SAE}:max' is the same as 'store/{SAE}"),
        (
            {"baselines": [], "features": [{"sae": SAE}, {"sae": SAE, "store": f"{own}/"}]},
            f"features: method 'own/{SAE}:max' is the same as '{SAE}:max' of the features; remove one",
        ),
        (
            {"baselines": ["hidden_mean", {"hidden": "mean", "store": own}], "features": []},
            "baselines: method 'own/hidden_mean' is the same as 'hidden_mean' of the baselines; remove one",
        ),
    ):
        spec = make_spec(own, tmp_path / "out", **change)
        opened = {uri: FeatureStore.open(uri) for uri in spec.other_stores}
        with pytest.raises(StudyError, match=said):
            plan_methods(FeatureStore.open(own), spec, opened)
