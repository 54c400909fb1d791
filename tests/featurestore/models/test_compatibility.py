"""What a store must share with the store that a model was trained on, and what is only said."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.errors import StudyError
from featurestore.format.schema import DenseColumn, SaeColumns, StoreSchema
from featurestore.format.store_plan import StorePlan
from featurestore.models.compatibility import Caution, check_store
from tests.training.stores import build_store, make_documents

IDENTITY: dict[str, Any] = {
    "model": {
        "name": "gemma-2-2b",
        "weights_sha256": "aa" * 32,
        "dtype": "bfloat16",
        "max_tokens": 64,
        "long_documents": "truncate",
        "stride": 0,
        "tokens": "content",
        "chat": False,
        "context_tokens": 1,
    },
    "saes": {
        "l2": {
            "hook": "resid_post of layer 2",
            "d_sae": 96,
            "architecture": "jumprelu",
            "mismatch": [],
            "sha256": "bb" * 32,
        }
    },
    "value_bits": 8,
    "bundle": "cc" * 32,
    "software": {"transformers": "5"},
}


def changed(**changes: Any) -> dict[str, Any]:
    """IDENTITY with changed keys, `model.dtype` written as `model__dtype`; None takes a key away."""
    identity = copy.deepcopy(IDENTITY)
    for key, value in changes.items():
        *path, last = key.split("__")
        at = identity
        for name in path:
            at = at[name]
        at[last] = value
        if value is None:
            del at[last]
    return identity


def plan_of(identity: dict[str, Any], pools: tuple[str, ...] = ("max", "sum"), name: str = "l2") -> StorePlan:
    schema = StoreSchema(
        (), (SaeColumns(name, 96, pools),), dense=(DenseColumn("resid_post_2__hidden_mean", 32),), value_bits=8
    )
    return StorePlan(schema, identity, {}, [], 0, {})


def check(trained: dict[str, Any], plan: StorePlan, **header: Any) -> tuple[Caution, ...]:
    trained_on = {"identity": trained, "d_sae": {"l2": 96}}
    return check_store(
        {"saes": ["l2"], "pool": "sum", "dense": None, "trained_on": trained_on, **header}, plan, "STORE"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"model__name": "gemma-2-9b"},
            "was made with model.name gemma-2-9b, but this model was trained on gemma-2-2b",
        ),
        ({"model__tokens": "all"}, "was made with model.tokens all, but this model was trained on content"),
        ({"model__chat": True}, "was made with model.chat True, but this model was trained on False"),
        ({"model__date": "2024-07-26"}, "was made with model.date 2024-07-26, but this model was trained on None"),
        ({"model__weights_sha256": "ee" * 32}, r"other weights of gemma-2-2b .*\(sha256 eeeeeeeeeeee instead of aaaa"),
        ({"saes__l2__sha256": "dd" * 32}, r"its SAE 'l2' is not the one .*\(sha256 dddddddddddd instead of bbbb"),
        ({"saes__l2__hook": "resid_post of layer 3"}, "hook resid_post of layer 3 instead of resid_post of layer 2"),
        ({"saes__l2__k": 32}, "k 32 instead of None"),
        ({"saes__l2__sha256": None, "saes__l2__hook": "resid_post of layer 3"}, "hook resid_post of layer 3"),
        ({"saes__l2__sha256": None, "saes__l2__mismatch": ["of another model"]}, "mismatch .* instead of"),
    ],
)
def test_what_gives_every_document_other_features_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        check(IDENTITY, plan_of(changed(**changes, bundle="other")))


@pytest.mark.parametrize(
    "changes", [{}, {"pool": ["max"]}, {"compute": {"device": "cuda"}}, {"saes__l2__mismatch": ["said otherwise"]}]
)
def test_what_changes_no_feature_is_accepted_without_a_word(changes: dict[str, Any]) -> None:
    assert check(IDENTITY, plan_of(changed(**changes, bundle="other"))) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"model__dtype": "float32"},
        {"saes__l3": {"hook": "resid_post of layer 3"}},
        {"software__transformers": "6"},
        {"model__weights_sha256": None},
    ],
)
def test_weights_are_compared_only_where_the_same_ones_give_the_same_file(changes: dict[str, Any]) -> None:
    check(IDENTITY, plan_of(changed(**{"model__weights_sha256": "ee" * 32, **changes})))


def test_columns_that_the_model_reads_are_asked_for() -> None:
    with pytest.raises(
        StudyError, match=r"has no pooling 'sum' of SAE 'l2', .* it has: max, count; its job needs 'sum' under"
    ):
        check(IDENTITY, plan_of(IDENTITY, ("max", "count")), pool="mean")
    with pytest.raises(
        StudyError, match=r"has no column 'resid_post_9__hidden_last', .* columns: resid_post_2__hidden_mean"
    ):
        check(IDENTITY, plan_of(IDENTITY), dense="resid_post_9__hidden_last", pool=None, saes=[])
    other = changed(saes__l2=None, saes__wide=IDENTITY["saes"]["l2"])
    with pytest.raises(
        StudyError, match=r"no SAE 'l2', .* it has: wide; 'wide' is the same encoder: call it 'l2' in the job"
    ):
        check(IDENTITY, plan_of(other, name="wide"))


def test_a_side_that_does_not_say_its_encoder_is_warned_of_unless_the_bundle_is_the_same() -> None:
    silent = changed(saes__l2__sha256=None)
    assert check(IDENTITY, plan_of(silent)) == ()
    assert check(silent, plan_of(IDENTITY)) == ()
    (caution,) = check(IDENTITY, plan_of({**silent, "bundle": "other"}))
    assert caution.sentence.startswith("STORE does not record the sha256 of SAE 'l2' (written by an earlier version)")
    (caution,) = check({**silent, "bundle": "other"}, plan_of(silent))
    assert caution.sentence.startswith("the model and STORE do not record the sha256 of SAE 'l2'")


def test_the_store_that_a_model_was_trained_on_needs_no_warning() -> None:
    plan = plan_of(changed(saes__l2__sha256=None, bundle=None))
    trained_on = {"identity": plan.identity, "d_sae": {"l2": 96}, "fingerprint": plan.fingerprint}
    assert check_store({"saes": ["l2"], "pool": "sum", "dense": None, "trained_on": trained_on}, plan, "STORE") == ()


@pytest.mark.parametrize(
    ("changes", "sentence", "longer_than"),
    [
        ({"model__max_tokens": 32}, "model.max_tokens 32, this model was trained with model.max_tokens 64", 31),
        ({"model__max_tokens": 128}, "model.max_tokens 128, this model was trained with model.max_tokens 64", 63),
        ({"model__long_documents": "windows", "model__stride": 8}, "model.long_documents windows, model.stride 8", 63),
        ({"model__max_tokens": 32, "model__context_tokens": 5}, "documents of more than 27 tokens", 27),
        ({"model__dtype": "float32", "value_bits": 24}, "model.dtype float32 and value_bits 24, .* by rounding", None),
    ],
)
def test_what_only_long_documents_or_roundings_feel_is_said(
    changes: dict[str, Any], sentence: str, longer_than: int | None
) -> None:
    (caution,) = check(IDENTITY, plan_of(changed(**changes)))
    assert caution.longer_than == longer_than
    assert re.search(sentence, caution.sentence)


def test_a_store_counts_the_documents_that_can_be_concerned(tmp_path: Path) -> None:
    documents = make_documents(30)
    documents.n_tokens[:4] = [32, 31, 64, 64]
    store = FeatureStore.open(build_store(tmp_path / "s", documents))
    assert Caution("long ones differ", 31).counted(store) == "long ones differ: 3 of 30"
    assert Caution("all differ").counted(store) == "all differ"
