"""TF-IDF fitted on training rows only: equal to scikit-learn's own vectoriser, blind to other rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils.estimator_checks import check_estimator

from featurestore.errors import StudyError
from training.methods.tfidf import CountsToTfidf, count_terms

TEXTS = [" ".join(f"w{int(w)}" for w in np.random.default_rng(i).zipf(1.4, 30).clip(max=400)) for i in range(60)]


@pytest.mark.parametrize("max_terms", [20_000, 50])
def test_it_equals_the_vectoriser_of_scikit_learn_fitted_on_the_training_rows(max_terms: int) -> None:
    counts = count_terms(TEXTS)
    ours = CountsToTfidf(max_terms).fit(counts[:40])
    theirs = TfidfVectorizer(ngram_range=(1, 2), max_features=max_terms, sublinear_tf=True).fit(TEXTS[:40])
    for rows in (slice(0, 40), slice(40, 60)):
        ours_X, theirs_X = ours.transform(counts[rows]), theirs.transform(TEXTS[rows])
        assert ours_X.shape == theirs_X.shape
        assert abs(ours_X - theirs_X).max() < 1e-12


def test_words_of_other_rows_change_nothing() -> None:
    spoiled = [*TEXTS[:40], *(["w1 w2 brandnew secret"] * 20)]
    before = CountsToTfidf().fit(count_terms(TEXTS)[:40]).transform(count_terms(TEXTS)[:40])
    after = CountsToTfidf().fit(count_terms(spoiled)[:40]).transform(count_terms(spoiled)[:40])
    assert (before.toarray() == after.toarray()).all()


def test_texts_without_words_are_refused() -> None:
    with pytest.raises(StudyError, match="tfidf finds no word in any text"):
        count_terms(["", "? !", "a"])


def test_it_is_a_scikit_learn_transformer() -> None:
    check_estimator(CountsToTfidf())
