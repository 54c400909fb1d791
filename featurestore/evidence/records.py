"""What evidence is: the tokens of one document, and for some features the activation at each of them.

Stage 1 computes it (`ray_jobs.evidence`), everybody else only ever sees these records, or their JSON. What is read from
JSON is checked as if somebody else had written it, for it may lie in files for years.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

MAX_TOKENS = 1 << 22  # of a document: four times the longest context of any model; more is a mistake or an attack
_SUM_ERROR = 1e-6  # relative, of a sum of float32 values in float64, however it was ordered; generous


@dataclass(frozen=True)
class Token:
    """One token that the model was fed.

    The tokens of the document follow one another without a gap: their texts joined are the document, up to where it was
    cut. Where several tokens share a character (its bytes) the first one has it, and the others have none. A
    conversation is JSON, and its tokens are those of its turns: what stands between these is no token's.

    Attributes:
        text: The characters [start, stop) of the document; of a token that is not of the document (beginning of
            sequence, chat template) its name, `<bos>` for instance, and then `start == stop`.
        start: First character in the document, counted in code points.
        stop: One past the last.
        pooled: Whether it counts for the document's features.
    """

    text: str
    start: int
    stop: int
    pooled: bool


@dataclass(frozen=True)
class FeatureEvidence:
    """One feature in one document.

    Attributes:
        sae: Name of its SAE in the store.
        feature: Its index, below d_sae.
        values: Activation at each token (float32 as Python floats); 0 where it does not fire, and where the token is
            not pooled: nothing is encoded there.
        max: Largest of the values, 0 without tokens.
        sum: Their sum, in float64.
    """

    sae: str
    feature: int
    values: tuple[float, ...]
    max: float
    sum: float


@dataclass(frozen=True)
class DocumentEvidence:
    """The tokens of one document and some of its features.

    Attributes:
        doc_id: Which document.
        tokens: All that the model was fed, each once, in order; empty where there is none or the evidence is missing.
        features: In the order asked for; each has one value for each token.
        problem: A sentence: what is missing, or why pooled values here differ from those of the store; None if nothing.
    """

    doc_id: str
    tokens: tuple[Token, ...]
    features: tuple[FeatureEvidence, ...]
    problem: str | None = None

    def only(self, wanted: Iterable[tuple[str, int]]) -> DocumentEvidence | None:
        """The same with certain (sae, feature) only, in this order; None if one of them is not here."""
        there = {(feature.sae, feature.feature): feature for feature in self.features}
        try:
            return replace(self, features=tuple(there[key] for key in wanted))
        except KeyError:
            return None


@dataclass(frozen=True)
class Stretch:
    """Characters to be marked alike.

    Attributes:
        text: The characters, never none.
        value: Of the strongest token that they belong to.
        of_document: Whether they are text of the document, and not the name of a token around it.
        pooled: Whether they count.
    """

    text: str
    value: float
    of_document: bool
    pooled: bool


def stretches(document: DocumentEvidence, feature: FeatureEvidence) -> list[Stretch]:
    """What to show of a document with one of its features: a token each, those without characters with the one before.

    Args:
        document: The evidence.
        feature: One of its features.
    """
    shown: list[Stretch] = []
    for token, value in zip(document.tokens, feature.values, strict=True):
        if token.text:
            shown.append(Stretch(token.text, value, token.stop > token.start, token.pooled))
        elif shown and value > shown[-1].value:
            shown[-1] = replace(shown[-1], value=value)
    return shown


def to_json(document: DocumentEvidence) -> dict[str, Any]:
    """A document's evidence as plain JSON data; `problem` is there only if there is one."""
    data: dict[str, Any] = {
        "doc_id": document.doc_id,
        "tokens": [
            {"text": token.text, "start": token.start, "stop": token.stop, "pooled": token.pooled}
            for token in document.tokens
        ],
        "features": [
            {"sae": one.sae, "feature": one.feature, "values": list(one.values), "max": one.max, "sum": one.sum}
            for one in document.features
        ],
    }
    return data if document.problem is None else data | {"problem": document.problem}


def from_json(data: Any) -> DocumentEvidence:
    """Evidence from JSON data that may be anything.

    Raises:
        ValueError: It is not what `to_json` gives; the message says what is wrong with it.
    """
    tokens = tuple(_token(item) for item in _sequence(data, "tokens"))
    features = tuple(_feature(item, len(tokens)) for item in _sequence(data, "features"))
    if any(after.start < before.start for before, after in pairwise(tokens)):
        raise ValueError("its tokens are not in the order of the text")
    problem = data.get("problem")
    return DocumentEvidence(
        _text(data, "doc_id"), tokens, features, None if problem is None else _text(data, "problem")
    )


def _token(item: Any) -> Token:
    token = Token(_text(item, "text"), _whole(item, "start", 0), _whole(item, "stop", 0), _typed(item, "pooled", bool))
    if token.stop < token.start:
        raise ValueError(f"a token ends at {token.stop}, before its start {token.start}")
    return token


def _feature(item: Any, n_tokens: int) -> FeatureEvidence:
    values = tuple(_number(value) for value in _sequence(item, "values"))
    feature = FeatureEvidence(
        _text(item, "sae"), _whole(item, "feature", 0), values, _number(item["max"]), _number(item["sum"])
    )
    if len(values) != n_tokens:
        raise ValueError(f"a feature has {len(values)} values for {n_tokens} tokens")
    total = math.fsum(values)
    if feature.max != max(values, default=0.0) or abs(feature.sum - total) > _SUM_ERROR * total:
        raise ValueError(f"feature {feature.feature} has a max or sum that its values do not give")
    return feature


def _typed(item: Any, key: str, kind: type) -> Any:
    if not isinstance(item, Mapping):
        raise ValueError(f"{type(item).__name__} stands where an object should")
    if type(item.get(key)) is not kind:
        raise ValueError(f"'{key}' is missing or no {kind.__name__}")
    return item[key]


def _text(item: Any, key: str) -> str:
    text: str = _typed(item, key, str)
    text.encode()  # a lone surrogate is a UnicodeEncodeError, which is a ValueError
    return text


def _whole(item: Any, key: str, least: int) -> int:
    number: int = _typed(item, key, int)
    if not least <= number < 1 << 53:
        raise ValueError(f"'{key}' is {number:,}")
    return number


def _sequence(item: Any, key: str) -> Sequence[Any]:
    found: list[Any] = _typed(item, key, list)
    if len(found) > MAX_TOKENS:
        raise ValueError(f"'{key}' has {len(found):,} entries; {MAX_TOKENS:,} are the limit")
    return found


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ValueError(f"{str(value)[:40]} is no activation")
    return float(value)
