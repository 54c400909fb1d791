"""Check that evidence agrees with its store: pooling its tokens must give what the store holds of the document.

Values may differ by the rounding of the store and by what the precision of the model allows; beyond that the evidence
carries a sentence with both values and the likeliest reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.evidence.records import DocumentEvidence, FeatureEvidence, Token
from featurestore.url_secrets import shown

if TYPE_CHECKING:
    from featurestore.reader import FeatureStore

FLOAT32, BFLOAT16 = 1e-4, 0.05
"""By how much of a value it may differ with the company that a document was in: last bits of float32, of which adding
up dimensions in the thousands costs some; 5 % in bfloat16 (docs/design.md, section 5)."""

COMPARED = ("max", "sum", "last", "count")


def stored_values(
    store: FeatureStore, wanted: Mapping[str, Sequence[tuple[str, int]]]
) -> dict[tuple[str, str, int, str], float]:
    """(document, SAE, feature, pooling) -> what the store has."""
    by_sae: dict[str, dict[int, None]] = {}
    for pairs in wanted.values():
        for sae, feature in pairs:
            by_sae.setdefault(sae, {})[feature] = None
    doc_ids, found = list(wanted), {}
    for sae, features in by_sae.items():
        for pool in (pool for pool in COMPARED if pool in store.sae(sae).pools):
            X = store.take(doc_ids, sae, pool, features=list(features), dtype=np.float64).X.tocoo()
            names = list(features)
            for row, column, value in zip(X.row.tolist(), X.col.tolist(), X.data.tolist(), strict=True):
                found[doc_ids[row], sae, names[column], pool] = value
    return found


def checked(
    document: DocumentEvidence,
    n_stored: int,
    pooled: Mapping[tuple[str, str, int, str], float],
    store: FeatureStore,
) -> DocumentEvidence:
    """The evidence, with a problem where values differ; without tokens where it is plainly of another text.

    Args:
        document: What was computed.
        n_stored: Tokens that the store has pooled of it.
        pooled: From `stored_values`.
        store: The store.
    """
    n_tokens = sum(token.pooled for token in document.tokens)
    if n_tokens != n_stored:
        reason = f"its text has {n_tokens:,} counted tokens now and had {n_stored:,} when the store was made"
        return DocumentEvidence(document.doc_id, (), (), f"document '{document.doc_id}' cannot be shown: {reason}")
    differing = [
        f"{one.sae}:{one.feature} {pool} is {here:.4g} here and {there:.4g} in the store"
        for one in document.features
        for pool in COMPARED
        if pool in store.sae(one.sae).pools
        and not _agree(
            pool,
            here := _pool(one, document.tokens, pool),
            there := pooled.get((document.doc_id, one.sae, one.feature, pool), 0.0),
            store,
        )
    ]
    if not differing:
        return document
    more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
    return DocumentEvidence(document.doc_id, document.tokens, document.features, f"{differing[0]}{more}: {_why(store)}")


def _pool(feature: FeatureEvidence, tokens: Sequence[Token], pool: str) -> float:
    if pool == "max":
        return feature.max
    if pool == "sum":
        return feature.sum
    values = [value for value, token in zip(feature.values, tokens, strict=True) if token.pooled]
    return float(sum(value > 0 for value in values)) if pool == "count" else values[-1] if values else 0.0


def _agree(pool: str, here: float, there: float, store: FeatureStore) -> bool:
    """Whether a pooled value is the stored one, within the store's rounding and what the precision allows."""
    error = FLOAT32 if _dtype(store) == "float32" else BFLOAT16
    if pool == "count":
        return abs(here - there) <= (0 if _dtype(store) == "float32" else max(1, error * there))
    # half a step of the last bit that is kept, for values just above a power of two
    return abs(here - there) <= (error + 2.0**-store.schema.value_bits) * max(abs(here), abs(there))


def _dtype(store: FeatureStore) -> Any:
    model = store.plan.identity.get("model")
    return model.get("dtype") if isinstance(model, Mapping) else None


def _why(store: FeatureStore) -> str:
    """The likeliest reason why values differ beyond rounding."""
    from ray_jobs.planning.identity import deciding_software

    recorded = store.plan.identity.get("software")
    recorded = recorded if isinstance(recorded, Mapping) else {}
    here = deciding_software()
    other = [f"{name} {recorded[name]}" for name in recorded if here.get(name) != recorded[name]]
    if other:
        return f"{shown(store.uri)} was made with {', '.join(other)}, and here is another version"
    if _dtype(store) != "float32":
        return "in bfloat16 a feature near its threshold fires or not with the documents that were run beside this one"
    return "the text or the model is not what the store was made from, or the feature is at its threshold"
