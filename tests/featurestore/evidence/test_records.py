"""Evidence as plain data: the shape that is promised, and what is refused in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from featurestore.evidence.records import (
    DocumentEvidence,
    FeatureEvidence,
    Stretch,
    Token,
    from_json,
    stretches,
    to_json,
)

TOKENS = (
    Token("<bos>", 0, 0, False),
    Token("I", 0, 1, True),
    Token(" love", 1, 6, True),
    Token("🙂", 6, 7, True),
    Token("", 7, 7, True),
)
FIRES = FeatureEvidence("l9", 7, (0.0, 0.0, 1.5, 0.5, 2.25), 2.25, 4.25)
SILENT = FeatureEvidence("l9", 3, (0.0,) * 5, 0.0, 0.0)
DOCUMENT = DocumentEvidence("d1", TOKENS, (FIRES, SILENT))


def test_a_document_has_the_promised_json() -> None:
    small = DocumentEvidence("d1", TOKENS[:2], (FeatureEvidence("l9", 7, (0.0, 1.5), 1.5, 1.5),))
    assert to_json(small) == {
        "doc_id": "d1",
        "tokens": [
            {"text": "<bos>", "start": 0, "stop": 0, "pooled": False},
            {"text": "I", "start": 0, "stop": 1, "pooled": True},
        ],
        "features": [{"sae": "l9", "feature": 7, "values": [0.0, 1.5], "max": 1.5, "sum": 1.5}],
    }


@pytest.mark.parametrize("document", [DOCUMENT, DocumentEvidence("d2", (), (), "its text is gone")])
def test_json_gives_the_document_back(document: DocumentEvidence) -> None:
    assert from_json(json.loads(json.dumps(to_json(document)))) == document


def change(path: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    """Sets what stands at a path like `tokens.1.start`."""

    def apply(data: dict[str, Any]) -> Any:
        *way, last = path.split(".")
        at: Any = data
        for key in way:
            at = at[int(key) if isinstance(at, list) else key]
        at[int(last) if isinstance(at, list) else last] = value
        return data

    return apply


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: [data], "list stands where an object should"),
        (change("doc_id", 5), "'doc_id' is missing or no str"),
        (change("doc_id", "\ud800"), "surrogate"),
        (change("tokens", {}), "'tokens' is missing or no list"),
        (change("tokens.1", None), "NoneType stands"),
        (change("tokens.1.start", -1), "'start' is -1"),
        (change("tokens.1.start", True), "'start' is missing or no int"),
        (change("tokens.1.stop", 10**30), "'stop' is"),
        (change("tokens.2.start", 9), "ends at 6, before its start 9"),
        (change("tokens.1.start", 1), "not in the order"),
        (change("tokens.1.pooled", 1), "'pooled' is missing or no bool"),
        (change("features.0.values", [1.5]), "1 values for 5 tokens"),
        (change("features.0.values.1", float("nan")), "no activation"),
        (change("features.0.values.1", float("inf")), "no activation"),
        (change("features.0.values.1", -1.0), "no activation"),
        (change("features.0.values.1", "1"), "no activation"),
        (change("features.0.max", 9.0), "max or sum"),
        (change("features.0.sum", 4.5), "max or sum"),
        (change("features.0.sae", None), "'sae' is missing"),
        (change("features.0.feature", -1), "'feature' is -1"),
        (change("problem", 5), "'problem' is missing or no str"),
    ],
)
def test_json_that_says_anything_else_is_refused(spoil: Callable[[dict[str, Any]], Any], reason: str) -> None:
    data = json.loads(json.dumps(to_json(DOCUMENT)))
    if reason == "not in the order":
        data["tokens"][1]["start"] = data["tokens"][1]["stop"] = 3
    else:
        data = spoil(data)
    with pytest.raises(ValueError, match=reason):
        from_json(data)


def test_some_features_of_a_document_come_in_the_order_asked_for() -> None:
    assert DOCUMENT.only([("l9", 3), ("l9", 7)]) == DocumentEvidence("d1", TOKENS, (SILENT, FIRES))
    assert DOCUMENT.only([("l9", 3), ("l9", 8)]) is None


def test_tokens_without_characters_count_for_those_before_them() -> None:
    assert stretches(DOCUMENT, FIRES) == [
        Stretch("<bos>", 0.0, False, False),
        Stretch("I", 0.0, True, True),
        Stretch(" love", 1.5, True, True),
        Stretch("🙂", 2.25, True, True),
    ]
