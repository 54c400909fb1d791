"""The page of a store says what it holds, whole or not, and leaves out what it must."""

from __future__ import annotations

import numpy as np

from featurestore import FeatureStore
from tests.training.report.test_study_page import text_of
from training.report.store_page import store_page, store_report


def test_it_counts_documents_features_and_values_as_the_store_does(store: str) -> None:
    page, opened = store_page(store), FeatureStore.open(store)
    assert next(n for n, what, _ in page["facts"] if what == "documents") == f"{len(opened):,}"
    (sae,) = page["saes"]
    X = opened.matrix().X
    assert sae["dead"] == str(int((np.bincount(X.indices, minlength=X.shape[1]) == 0).sum()))
    assert sae["commonest"][0][1] == f"{np.bincount(X.indices).max():,}"
    label = next(column for column in page["columns"] if column["name"] == "label")
    assert {value for value, _, _ in label["rows"]} == {"ham", "spam"}


def test_the_same_store_gives_the_same_bytes_and_says_where_it_comes_from(store: str) -> None:
    page = store_report(store)
    assert page == store_report(store)
    assert FeatureStore.open(store).fingerprint in text_of(page)


def test_texts_are_never_shown_and_private_pages_show_no_values(store: str) -> None:
    assert "word1" not in store_report(store).decode()
    private = store_report(store, private=True).decode()
    assert store not in private and "spam" not in private
