"""From (document, features) to evidence: tokens with activations, checked against what the store has pooled of them.

Only the documents asked for are run, with encoders cut to the features asked for. What pooling the tokens gives must be
what the store holds, within its rounding and within what the precision allows; where it is not, the evidence says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import StoreError
from featurestore.evidence.records import DocumentEvidence, FeatureEvidence, Token
from featurestore.urls import shown
from ray_jobs.evidence.store_bundle import store_bundle, store_settings
from ray_jobs.evidence.texts import StoredDocument, stored_documents

if TYPE_CHECKING:
    from featurestore.reader import FeatureStore
    from ray_jobs.engine.bundle import Bundle
    from ray_jobs.engine.extractor import ExtractSettings
    from ray_jobs.engine.token_values import TokenValues

Wanted = Mapping[str, Sequence[tuple[str, int]]]
"""Id of a document -> (name of an SAE, index of a feature) of each feature asked for."""

FLOAT32, BFLOAT16 = 1e-4, 0.05
"""By how much of a value it may differ with the company that a document was in: last bits of float32, of which adding
up dimensions in the thousands costs some; 5 % in bfloat16 (docs/design.md, section 5)."""

COMPARED = ("max", "sum", "last", "count")


def compute_evidence(
    store: FeatureStore,
    wanted: Wanted,
    texts: Mapping[str, str] | None = None,
    bundle: Bundle | None = None,
    say: Callable[[str], None] | None = None,
) -> Iterator[DocumentEvidence]:
    """The evidence of documents of a store.

    Args:
        store: An open store.
        wanted: Which documents, and of each which features.
        texts: Texts by id, where they are at hand; the others come from the store or its corpus.
        bundle: The store's bundle, where it is open already.
        say: Called with a line of text before every slow step.

    Yields:
        One for each document, in the order asked for. One without text, or that failed when the store was made, has no
        tokens and a `problem` that says what is missing.

    Raises:
        StoreError: A document, SAE or feature is not in the store.
        BundleError: The bundle is gone and cannot be built again.
    """
    check_features(store, wanted)
    stored = stored_documents(store, list(wanted))
    given = {doc_id: (texts or {}).get(doc_id, document.text) for doc_id, document in stored.items()}
    known = {doc_id: text for doc_id, text in given.items() if text is not None and stored[doc_id].error is None}
    run: Iterator[DocumentEvidence] = iter(())
    if known:
        plan = store.plan
        bundle = bundle or store_bundle(plan, store.uri, say)
        settings = store_settings(plan, store.uri)
        run = token_evidence(bundle, settings, known, {doc_id: wanted[doc_id] for doc_id in known})
        pooled = _pooled(store, {doc_id: wanted[doc_id] for doc_id in known})
    for doc_id in wanted:
        if doc_id not in known:
            yield DocumentEvidence(doc_id, (), (), _missing(doc_id, stored[doc_id]))
            continue
        document = next(run)
        yield _checked(document, stored[doc_id], pooled, store) if document.problem is None else document


def token_evidence(
    bundle: Bundle, settings: ExtractSettings, texts: Mapping[str, str], wanted: Wanted
) -> Iterator[DocumentEvidence]:
    """The evidence of texts, in any store or none.

    Args:
        bundle: A prepared bundle.
        settings: How texts are fed to its model (poolings and attention do not matter).
        texts: Id -> text.
        wanted: Of each text the features.

    Yields:
        One for each text, in order; one that fails has no tokens and a `problem`.
    """
    from ray_jobs.engine.token_values import TokenReader

    features: dict[str, dict[int, int]] = {}  # SAE -> feature -> its column
    for doc_id in texts:
        for sae, feature in wanted[doc_id]:
            columns = features.setdefault(sae, {})
            columns.setdefault(feature, len(columns))
    reader = TokenReader(bundle, settings, {sae: list(columns) for sae, columns in features.items()})
    for (doc_id, text), values in zip(texts.items(), reader.read(list(texts.values())), strict=True):
        yield _evidence(doc_id, text, values, [(sae, f, features[sae][f]) for sae, f in wanted[doc_id]])


def check_features(store: FeatureStore, wanted: Wanted) -> None:
    """Refuse features that a store does not have.

    Raises:
        StoreError: Naming the SAE or feature.
    """
    for sae, feature in dict.fromkeys(pair for pairs in wanted.values() for pair in pairs):
        d_sae = store.sae(sae).d_sae
        if not 0 <= feature < d_sae:
            raise StoreError(f"SAE '{sae}' has no feature {feature}; it has features 0 to {d_sae - 1}")


def _evidence(doc_id: str, text: str, found: TokenValues, wanted: Sequence[tuple[str, int, int]]) -> DocumentEvidence:
    if found.error is not None:
        return DocumentEvidence(doc_id, (), (), f"document '{doc_id}': {found.error}")
    tokens = tuple(
        Token(name or text[start:stop], start, stop, pooled)
        for name, start, stop, pooled in zip(
            found.names, found.start.tolist(), found.stop.tolist(), found.pooled.tolist(), strict=True
        )
    )
    features = []
    for sae, feature, column in wanted:
        values = found.values[sae][:, column]
        total = np.float32(values.sum(dtype=np.float64))
        features.append(
            FeatureEvidence(
                sae, feature, tuple(map(_shortest, values)), _shortest(values.max(initial=0.0)), _shortest(total)
            )
        )
    return DocumentEvidence(doc_id, tokens, tuple(features))


def _shortest(value: Any) -> float:
    """A float32 as the float whose decimals are the fewest that give it back: 0.1 and not 0.10000000149011612."""
    return float(str(np.float32(value)))


def _missing(doc_id: str, document: StoredDocument) -> str:
    if document.error is not None:
        return f"document '{doc_id}' failed when the store was made, so it has no features: {document.error}"
    return f"document '{doc_id}' cannot be shown: {document.missing}"


def _pooled(store: FeatureStore, wanted: Wanted) -> dict[tuple[str, str, int, str], float]:
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


def _checked(
    document: DocumentEvidence,
    stored: StoredDocument,
    pooled: Mapping[tuple[str, str, int, str], float],
    store: FeatureStore,
) -> DocumentEvidence:
    """The evidence if it is that of the stored document, with a problem where values differ."""
    n_tokens = sum(token.pooled for token in document.tokens)
    if n_tokens != stored.n_tokens:
        reason = f"its text has {n_tokens:,} counted tokens now and had {stored.n_tokens:,} when the store was made"
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
