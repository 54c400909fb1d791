"""Near-duplicates: found as an exhaustive comparison finds them, whatever the order and the script."""

from __future__ import annotations

import random
import time
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.documents import near_duplicates as module
from training.documents.near_duplicates import BUCKET, SIMILAR, near_duplicates
from training.documents.shingles import BANDS, BINS, ROWS, Sketches, agreeing, jaccard, shingle_set

WORDS = [f"w{i}ord" for i in range(60)]


def shingles_by_hand(text: str) -> set[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    levelled = " ".join("".join(c if c.isalnum() else " " for c in folded).split())
    return {levelled[i : i + 5] for i in range(max(len(levelled) - 4, 1))} if levelled else set()


def overlap(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b) if a or b else 0.0


def clusters_by_hand(texts: Sequence[str]) -> list[int]:
    """Every pair compared, chains joined."""
    shingles = [shingles_by_hand(text) for text in texts]
    label = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if label[i] != label[j] and overlap(shingles[i], shingles[j]) >= SIMILAR:
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
    assert near_duplicates(["", "."]).tolist() == [0, 1]
    assert near_duplicates([]).tolist() == []


@settings(max_examples=50)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=12), st.randoms())
def test_any_texts_in_any_order_give_the_same_clusters(texts: list[str], random: object) -> None:
    order = list(range(len(texts)))
    random.shuffle(order)  # type: ignore[attr-defined]
    one = near_duplicates(texts)
    other = near_duplicates([texts[i] for i in order])
    assert same_partition(one[order].tolist(), other.tolist())


@settings(max_examples=100)
@given(st.text(max_size=40), st.text(max_size=40))
def test_shingles_are_those_of_the_levelled_text_and_overlap_as_sets_do(one: str, other: str) -> None:
    a, b = shingles_by_hand(one), shingles_by_hand(other)
    assert len(shingle_set(one)) == len(a)
    if a and b:
        assert jaccard(shingle_set(one), shingle_set(other)) == overlap(a, b)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    own=st.integers(1, 30),
    footer=st.sampled_from([0, 5, 60]),
    changes=st.integers(0, 3),
    script=st.sampled_from(["words", "cjk"]),
)
def test_clusters_are_those_of_an_exhaustive_comparison_with_a_footer_and_without(
    seed: int, own: int, footer: int, changes: int, script: str
) -> None:
    dice = random.Random(seed)
    pieces = WORDS if script == "words" else [chr(0x4E00 + i) for i in range(500)]
    between = " " if script == "words" else ""
    tail, texts = dice.choices(pieces, k=footer), []
    for _ in range(12):
        body = dice.choices(pieces, k=own)
        texts.append(between.join([*body, *tail]))
        for place in dice.choices(range(own), k=changes):
            body[place] = dice.choice(pieces)
        texts.append(between.join([*body, *tail]))
    assert same_partition(near_duplicates(texts).tolist(), clusters_by_hand(texts))


@pytest.mark.parametrize("size", [3, 9, 40, 300, 3000])
def test_bins_are_shared_with_the_probability_of_the_overlap_however_short_the_texts(size: int) -> None:
    """Pairs of texts of random words; a band is shared with its ROWS-th power."""
    dice = random.Random(size)
    overlaps, estimates, bands = [], [], []
    for _ in range(200):
        text = [str(dice.randrange(10**6)) for _ in range(size // 3)]
        other = [str(dice.randrange(10**6)) if dice.random() < 0.04 + 0.3 / size else word for word in text]
        pair = [" ".join(text), " ".join(other)]
        drawn = Sketches(pair)
        overlaps.append(overlap(*map(shingles_by_hand, pair)))
        estimates.append(agreeing(*drawn.sketch) / BINS)
        bands.append((drawn.band[0] == drawn.band[1]).mean())
    assert np.abs(np.array(estimates) - overlaps).max() < 0.2  # four standard errors of BINS at .5, and some
    assert np.mean(estimates) == pytest.approx(np.mean(overlaps), abs=0.01)
    assert np.mean(bands) == pytest.approx(np.mean(np.power(overlaps, ROWS)), abs=4 / (200 * BANDS) ** 0.5)


def words(dice: random.Random, n: int) -> str:
    return " ".join(str(dice.randrange(10 ** dice.randint(3, 9))) for _ in range(n))


def test_what_a_footer_hides_is_found_among_thousands() -> None:
    dice = random.Random(0)
    footer, texts = words(dice, 60), []
    for _ in range(1500):
        body = words(dice, 40).split()
        texts += [" ".join([*body, footer]), " ".join([*body[:20], "other", *body[21:], footer])]
    found = near_duplicates(texts)
    assert (found[::2] == found[1::2]).all()
    assert len(set(found)) == 1500


def test_prompts_of_one_template_are_one_cluster_and_those_of_others_are_not_in_it() -> None:
    dice = random.Random(0)
    frames = [words(dice, 60) for _ in range(3)]
    texts = [f"{frames[i % 3]} {words(dice, 2)}" for i in range(30 * BUCKET)]
    assert same_partition(near_duplicates(texts).tolist(), [i % 3 for i in range(len(texts))])


def test_large_buckets_give_the_same_clusters_in_any_order() -> None:
    dice = random.Random(0)
    frame = words(dice, 52)
    texts = [f"{frame} {words(dice, 8)}" for _ in range(6 * BUCKET)]  # pairs on both sides of the threshold
    found = near_duplicates(texts)
    assert 1 < len(set(found)) < len(texts)
    order = dice.sample(range(len(texts)), len(texts))
    assert same_partition(found[order].tolist(), near_duplicates([texts[i] for i in order]).tolist())


def test_room_for_two_texts_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """So long texts need no more memory than two of them."""
    dice = random.Random(0)
    texts = [f"{words(random.Random(i % 9), 60)} {words(dice, i % 4)}" for i in range(200)]
    found = near_duplicates(texts)
    monkeypatch.setattr(module, "KEPT", 100)
    assert found.tolist() == near_duplicates(texts).tolist()
    assert same_partition(found.tolist(), clusters_by_hand(texts))


def footers(n: int) -> list[str]:
    dice = random.Random(0)
    footer = words(dice, 60)
    return [f"{words(dice, 40)} {footer}" for _ in range(n)]


@pytest.mark.parametrize(
    "corpus",
    [
        footers,
        lambda n: ["Thank you for your message. I am out of the office until Monday."] * n,
        lambda n: [f"{words(random.Random(i % 4), 60)} {i}" for i in range(n)],
        lambda n: [f"{words(random.Random(0), 12)} {words(random.Random(i), 2)}" for i in range(n)],
        lambda n: [f"word{i}" for i in range(n)],
        lambda n: ["", "...", "a", "\ud800", "学"] * (n // 5),
        lambda n: [chr(0x4E00 + i % 20_000) + chr(0x4E00 + i // 20_000) + "天気です" for i in range(n)],
        lambda n: ["na " * (100 * n), words(random.Random(0), 10 * n), words(random.Random(0), 10 * n) + " end"],
    ],
    ids=["footer", "same", "templates", "straddling", "words", "empty", "cjk", "long"],
)
def test_four_times_the_texts_take_about_four_times_the_time(corpus: Callable[[int], list[str]]) -> None:
    near_duplicates(corpus(50))  # compiles
    seconds = []
    for n in (4_000, 16_000):
        texts = corpus(n)
        begun = time.thread_time()
        near_duplicates(texts)
        seconds.append(time.thread_time() - begun)
    assert seconds[1] < 0.1 + 8 * seconds[0]  # quadratic would be 16


def test_a_shared_footer_costs_less_than_twice_the_time() -> None:
    """45 times before, when all texts of a bucket met in Python."""
    with_footer, seconds = footers(16_000), [9.9, 9.9]
    without = [text[: len(text) - len(with_footer[0].split(" ", 40)[-1])] for text in with_footer]
    near_duplicates(without[:50])
    for _ in range(3):
        for k, texts in enumerate((without, with_footer)):
            begun = time.thread_time()
            assert len(set(near_duplicates(texts))) == len(texts)
            seconds[k] = min(seconds[k], time.thread_time() - begun)
    assert seconds[1] < 2.5 * seconds[0]  # 1.5 on an idle machine
