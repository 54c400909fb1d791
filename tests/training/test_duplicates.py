"""Near-duplicates: found as an exhaustive comparison finds them, whatever the order and the script."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.duplicates import SIMILAR, near_duplicates
from training.shingles import jaccard, shingle_set

WORDS = [f"w{i}ord" for i in range(60)]


def clusters_by_hand(texts: list[str]) -> list[int]:
    """Every pair compared, chains joined."""
    shingles = [shingle_set(text) for text in texts]
    label = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            a, b = shingles[i], shingles[j]
            if len(a) and len(b) and jaccard(a, b) >= SIMILAR:
                old, new = label[i], label[j]
                label = [new if value == old else value for value in label]
    return label


def same_partition(a: list[int], b: list[int]) -> bool:
    return len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))


def test_pairs_are_those_of_an_exhaustive_comparison() -> None:
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(60):
        words = rng.choice(WORDS, 30).tolist()
        texts.append(" ".join(words))
        for changes in (1, 2, 4):
            other = list(words)
            for place in rng.integers(0, 30, changes):
                other[place] = str(rng.choice(WORDS))
            texts.append(" ".join(other))
    found = near_duplicates(texts).tolist()
    assert same_partition(found, clusters_by_hand(texts))
    assert len(set(found)) < len(texts)


def test_case_punctuation_and_spacing_are_no_difference_and_one_word_in_six_is() -> None:
    texts = [
        "Buy now, cheap watches!",
        "buy  now cheap WATCHES",
        "Buy now, cheap flights!",
        "今日はとても良い天気です",
        "今日はとても良い天気です。",
    ]
    found = near_duplicates(texts).tolist()
    assert found[0] == found[1] != found[2]
    assert found[3] == found[4]


def test_empty_texts_are_nobodys_duplicates() -> None:
    assert len(set(near_duplicates(["", "", "...", "a"]).tolist())) == 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=12), st.randoms())
def test_any_texts_in_any_order_give_the_same_clusters(texts: list[str], random: object) -> None:
    order = list(range(len(texts)))
    random.shuffle(order)  # type: ignore[attr-defined]
    one = near_duplicates(texts)
    other = near_duplicates([texts[i] for i in order])
    assert same_partition(one[order].tolist(), other.tolist())
