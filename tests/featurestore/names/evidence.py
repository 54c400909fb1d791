"""Evidence made by hand: tokens that stand side by side, and where features fire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from featurestore.evidence.records import DocumentEvidence, FeatureEvidence, Token

SAE = "s"


def tokens_of(pieces: Sequence[str]) -> tuple[Token, ...]:
    """Tokens of a text that is these pieces in a row."""
    tokens, at = [], 0
    for piece in pieces:
        tokens.append(Token(piece, at, at + len(piece), True))
        at += len(piece)
    return tuple(tokens)


def evidence(doc_id: str, pieces: Sequence[str], fires: Mapping[int, Sequence[int]]) -> DocumentEvidence:
    """A document; `fires` is feature -> the numbers of the pieces in which it fires."""
    features = []
    for feature, at in fires.items():
        values = tuple(2.0 if k in at else 0.0 for k in range(len(pieces)))
        features.append(FeatureEvidence(SAE, feature, values, max(values, default=0.0), sum(values)))
    return DocumentEvidence(doc_id, tokens_of(pieces), tuple(features))
