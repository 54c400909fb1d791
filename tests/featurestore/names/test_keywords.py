"""Keywords are the words with the largest log odds of being marked, as Monroe et al. define them."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.names.keywords import LEAST_Z, keyword_name, keywords
from tests.featurestore.names.evidence import SAE, evidence


def reference_z(marked: dict[str, int], unmarked: dict[str, int]) -> dict[str, float]:
    """The equations of the log-odds ratio in Monroe et al. 2008, with the counts of all words as prior."""
    vocabulary = sorted(marked | unmarked)
    y_i = np.array([marked.get(word, 0) for word in vocabulary], float)
    y_j = np.array([unmarked.get(word, 0) for word in vocabulary], float)
    alpha = y_i + y_j
    a, n_i, n_j = alpha.sum(), y_i.sum(), y_j.sum()
    delta = np.log((y_i + alpha) / (n_i + a - y_i - alpha)) - np.log((y_j + alpha) / (n_j + a - y_j - alpha))
    variance = 1 / (y_i + alpha) + 1 / (y_j + alpha)
    return dict(zip(vocabulary, delta / np.sqrt(variance), strict=True))


def some_documents(n: int = 12) -> list:
    """The feature fires on dogs and wolves, and now and then on a common word."""
    animals = ["dog", "wolf", "dog"]
    return [
        evidence(
            f"d{i}", ["the", f" {animals[i % 3]}", " bit", " the", " man", " today"], {3: [1, 3] if i % 4 == 0 else [1]}
        )
        for i in range(n)
    ]


def test_keywords_are_those_of_the_formula() -> None:
    found = keywords(some_documents(), SAE, [3])[3]
    expected = reference_z({"dog": 8, "wolf": 4, "the": 3}, {"the": 21, "bit": 12, "man": 12, "today": 12})
    assert [word.word for word in found] == ["dog", "wolf"]
    for word in found:
        assert word.z == pytest.approx(expected[word.word], rel=1e-12)
    assert all(expected[word] < LEAST_Z for word in ("the", "bit", "man", "today"))
    assert (found[0].marked, found[0].unmarked, found[0].documents) == (8, 0, 8)


def test_the_order_of_documents_does_not_matter() -> None:
    documents = some_documents()
    assert keywords(documents, SAE, [3]) == keywords(documents[::-1], SAE, [3])


def test_words_of_equal_standing_come_in_the_order_of_the_alphabet() -> None:
    documents = [evidence(f"d{i}", [" zebra", " ape", " x", " y", " z", f" w{i}"], {3: [0, 1]}) for i in range(9)]
    assert [word.word for word in keywords(documents, SAE, [3])[3]] == ["ape", "zebra"]


def test_documents_in_which_it_is_silent_tell_what_is_common() -> None:
    firing = [evidence(f"d{i}", [" see", " red"], {3: [0, 1]}) for i in range(6)]
    silent = [evidence(f"s{i}", [" see", " a", " b", " see", " c"], {3: []}) for i in range(30)]
    assert [word.word for word in keywords([*firing, *silent], SAE, [3])[3]] == ["red"]


def test_a_word_of_one_document_is_its_subject() -> None:
    documents = some_documents()
    documents.append(evidence("odd", [" quark"] * 9 + [" a", " b"], {3: list(range(9))}))
    assert "quark" not in [word.word for word in keywords(documents, SAE, [3])[3]]


def test_a_feature_that_fires_everywhere_or_nowhere_has_no_keywords() -> None:
    everywhere = [evidence(f"d{i}", [" a", " b", f" c{i}"], {3: [0, 1, 2], 4: []}) for i in range(8)]
    assert keywords(everywhere, SAE, [3, 4, 5]) == {3: (), 4: (), 5: ()}
    one_word = [evidence(f"d{i}", [" a"], {3: [0]}) for i in range(8)]
    assert keywords(one_word, SAE, [3]) == {3: ()}


def test_another_saes_evidence_is_not_counted() -> None:
    assert keywords(some_documents(), "other", [3]) == {3: ()}


def test_data_that_is_no_word_makes_no_name() -> None:
    blob = "a" * 41
    documents = [evidence(f"d{i}", [f" {blob}", " key", " x", " y", f" w{i}"], {3: [0, 1]}) for i in range(9)]
    assert [word.word for word in keywords(documents, SAE, [3])[3]] == ["key"]


def test_a_name_says_that_it_is_of_keywords() -> None:
    name = keyword_name(3, keywords(some_documents(), SAE, [3])[3])
    assert name is not None
    assert (name.text, name.source, name.explainer) == ("dog, wolf", "evidence", "keywords")
    assert name.shown() == "dog, wolf [evidence, keywords]"
    assert keyword_name(3, ()) is None


def test_signs_are_quoted_in_a_name() -> None:
    documents = [evidence(f"d{i}", ["so", ",", " what", f" w{i}", "?"], {3: [1, 4]}) for i in range(9)]
    name = keyword_name(3, keywords(documents, SAE, [3])[3])
    assert name is not None and name.text == '",", "?"'
