"""Evidence of documents of a store: pooled, it is what the store holds, or it says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.errors import StoreError
from featurestore.evidence.records import DocumentEvidence, from_json, to_json
from featurestore.format.schema import round_values
from ray_jobs.evidence.compute import compute_evidence
from tests.ray_jobs.evidence.stores import extracted, pooled, strongest
from tests.tiny import tiny_texts


def test_pooled_tokens_are_the_stored_values_to_the_stores_rounding(textless: FeatureStore) -> None:
    wanted = strongest(textless, 40, 5)
    there = {pool: pooled(textless, pool) for pool in ("max", "sum", "count")}
    pairs = 0
    for document in compute_evidence(textless, wanted):
        assert document.problem is None
        for one in document.features:
            values = np.array([v for v, t in zip(one.values, document.tokens, strict=True) if t.pooled], np.float32)
            assert values.max() == np.float32(one.max) and np.isclose(values.sum(dtype=float), one.sum, rtol=1e-6)
            for pool, value in (("max", one.max), ("sum", one.sum)):
                stored = there[pool][document.doc_id, one.feature]
                step = abs(float(round_values(np.float32([value]), 8)[0]) - stored)
                assert step <= 2**-7 * stored  # equal, or neighbours where rounding was all but undecided
                assert abs(value - stored) <= (2**-8 + 1e-5) * stored
            assert there["count"][document.doc_id, one.feature] == (values > 0).sum()
            pairs += 1
    assert pairs == 200


def test_all_bits_of_a_float32_store_are_met_to_its_last(store: FeatureStore) -> None:
    wanted = strongest(store, 20, 5)
    there = {pool: pooled(store, pool) for pool in ("max", "sum")}
    for document in compute_evidence(store, wanted):
        assert document.problem is None
        for one in document.features:
            for pool, value in (("max", one.max), ("sum", one.sum)):
                np.testing.assert_allclose(value, there[pool][document.doc_id, one.feature], rtol=1e-5)


def test_a_feature_that_is_silent_in_a_document_is_silent_at_every_token(store: FeatureStore) -> None:
    X = store.matrix("tiny", "max").X
    row = next(i for i in range(len(store)) if X[i].nnz)
    silent = next(f for f in range(X.shape[1]) if X[row, f] == 0)
    doc_id = store.documents().collect()["doc_id"][row]
    (document,) = compute_evidence(store, {doc_id: [("tiny", silent)]})
    assert document.problem is None and not any(document.features[0].values) and document.features[0].max == 0


def test_texts_and_offsets_are_the_documents(store: FeatureStore, models: Path) -> None:
    rows = [line for line in (models / "c.jsonl").read_text().splitlines() if '"d11"' in line]
    text = json.loads(rows[0])["text"]
    (document,) = compute_evidence(store, {"d11": [("tiny", 1)]})
    own = [token for token in document.tokens if token.stop > token.start]
    assert all(token.text == text[token.start : token.stop] for token in own)
    assert "".join(token.text for token in own) == text
    assert document.tokens[0].text == "<bos>" and not document.tokens[0].pooled
    assert from_json(json.loads(json.dumps(to_json(document)))) == document


def test_a_store_without_text_gives_the_same_by_its_corpus(store: FeatureStore, textless: FeatureStore) -> None:
    wanted = {"d20": [("tiny", 1), ("tiny", 2)], "d0": [("tiny", 5)], "d59": [("tiny", 1)]}
    assert list(compute_evidence(textless, wanted)) == list(compute_evidence(store, wanted))


@pytest.mark.parametrize(
    "model",
    [
        {"max_tokens": 16, "long_documents": "windows", "stride": 4},
        {"max_tokens": 16},
        {"chat": True},
        {"chat": True, "tokens": "all", "max_tokens": 24, "long_documents": "windows", "stride": 3},
        {"tokens": "all"},
    ],
    ids=["windows", "truncated", "chat", "chat-all-windows", "all"],
)
def test_every_token_policy_pools_to_the_stored_values(models: Path, tmp_path: Path, model: dict[str, Any]) -> None:
    store = extracted(
        models, models / "c.jsonl", tmp_path / "store", model=model, value_bits=24, pool=["max", "sum", "last"]
    )
    wanted = strongest(store, 20, 4)
    there = {pool: pooled(store, pool) for pool in ("max", "sum")}
    n_windows = 0
    for document in compute_evidence(store, wanted):
        assert document.problem is None
        n_windows += len(document.tokens) > 16
        for one in document.features:
            np.testing.assert_allclose(one.max, there["max"][document.doc_id, one.feature], rtol=1e-5)
            np.testing.assert_allclose(one.sum, there["sum"][document.doc_id, one.feature], rtol=1e-5)
    assert n_windows > 5 or model == {"max_tokens": 16}


def test_kept_conversations_are_read_as_the_corpus_was(models: Path, tmp_path: Path) -> None:
    turns = [{"content": "Was it good?", "role": "system"}, {"content": "the river", "weight": 0.5, "role": "user"}]
    chats = [[*turns, {"role": "user", "content": text}] for text in tiny_texts(6, min_words=5, seed=3)]
    lines = [json.dumps({"id": f"d{number}", "messages": chat}) for number, chat in enumerate(chats)]
    (tmp_path / "c.jsonl").write_text("\n".join(lines), encoding="utf-8")
    corpus = {"text": "messages", "messages": "messages"}
    stores = [
        extracted(models, tmp_path / "c.jsonl", tmp_path / name, corpus=corpus | {"keep": keep}, model={"chat": True})
        for name, keep in (("kept", ["messages"]), ("read", []))
    ]
    wanted = strongest(stores[0], 6, 3)
    found = [list(compute_evidence(store, wanted)) for store in stores]
    assert found[0] == found[1] and len(wanted) == 6
    assert [document.problem for document in found[0]] == [None] * 6


def test_in_bfloat16_values_are_within_the_stated_bound_or_it_is_said(models: Path, tmp_path: Path) -> None:
    store = extracted(models, models / "c.jsonl", tmp_path / "store", model={"dtype": "bfloat16"})
    wanted = strongest(store, 40, 5)
    there = {pool: pooled(store, pool) for pool in ("max", "sum")}
    said = 0
    for document in compute_evidence(store, wanted):
        apart = [
            abs(value - stored) > (0.05 + 2**-8) * max(value, stored)
            for one in document.features
            for pool, value in (("max", one.max), ("sum", one.sum))
            for stored in [there[pool][document.doc_id, one.feature]]
        ]
        assert not any(apart) or "in bfloat16 a feature near its threshold" in (document.problem or "")
        said += document.problem is not None
    assert said <= 4  # of 40 documents


def test_documents_of_several_batches_come_in_the_order_asked_for(store: FeatureStore) -> None:
    wanted = {doc_id: features[:1] for doc_id, features in reversed(strongest(store, 50, 1).items())}
    assert [document.doc_id for document in compute_evidence(store, wanted)] == list(wanted)


def only(documents: Any) -> DocumentEvidence:
    (document,) = documents
    assert isinstance(document, DocumentEvidence)
    return document


def test_a_document_that_failed_says_so(store: FeatureStore) -> None:
    document = only(compute_evidence(store, {"d9": [("tiny", 1)]}))
    assert document.tokens == () and document.features == ()
    assert document.problem is not None and document.problem.startswith("document 'd9' failed when the store was made")


def test_a_document_without_tokens_has_a_silent_feature_and_no_problem(store: FeatureStore) -> None:
    document = only(compute_evidence(store, {"d7": [("tiny", 1)]}))
    assert document.tokens == () and document.problem is None
    assert (document.features[0].values, document.features[0].max, document.features[0].sum) == ((), 0.0, 0.0)


def test_another_text_is_not_taken_for_the_documents(store: FeatureStore) -> None:
    document = only(compute_evidence(store, {"d0": [("tiny", 1)]}, {"d0": "love " * 50}))
    assert document.tokens == () and "counted tokens now and had" in str(document.problem)


def test_another_text_of_the_same_length_is_told_by_its_values(store: FeatureStore) -> None:
    (doc_id, features), *_ = strongest(store, 1, 5).items()
    text = str(store.documents().collect().filter(doc_id=doc_id)["text"][0])
    words = [word for word in tiny_texts(1, min_words=5, max_words=5, seed=9)[0].split() if word.isalpha()]
    other = text.replace(text.split()[0], words[0], 1) if text.split()[0].isalpha() else words[0] + text
    document = only(compute_evidence(store, {doc_id: features}, {doc_id: other}))
    assert document.problem is not None


def test_a_corpus_that_is_gone_is_named(models: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "gone.jsonl"
    corpus.write_bytes((models / "c.jsonl").read_bytes())
    store = extracted(models, corpus, tmp_path / "store")
    corpus.unlink()
    document = only(compute_evidence(store, {"d0": [("tiny", 1)]}))
    assert document.tokens == ()
    assert "does not keep the text of its documents (corpus.keep)" in str(document.problem)
    assert "gone.jsonl" in str(document.problem)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"nobody": [("tiny", 1)]}, "no document 'nobody'"),
        ({"d0": [("tinny", 1)]}, "no SAE 'tinny' in this store; it holds: tiny; did you mean 'tiny'"),
        ({"d0": [("tiny", 96)]}, "SAE 'tiny' has no feature 96; it has features 0 to 95"),
        ({"d0": [("tiny", -1)]}, "no feature -1"),
    ],
)
def test_what_is_not_in_the_store_is_refused(store: FeatureStore, wanted: Any, sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence):
        list(compute_evidence(store, wanted))


def test_a_store_that_is_still_written_gives_its_documents_by_their_place_in_the_corpus(
    models: Path, tmp_path: Path
) -> None:
    extracted(models, models / "c.jsonl", tmp_path / "store")
    (tmp_path / "store" / "manifest.json").unlink()
    (tmp_path / "store" / "parts" / "part-000000.parquet").unlink()
    store = FeatureStore.open(str(tmp_path / "store"), partial=True)
    document = only(compute_evidence(store, {"d45": [("tiny", 1)]}))
    assert document.problem is None and document.tokens
