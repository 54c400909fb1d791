"""Compute the evidence for (document, feature) pairs, and check it against what the store has pooled.

Only the documents asked for are run, with encoders cut to the features asked for. What pooling the tokens gives must be
what the store holds, within its rounding and within what the precision allows; where it is not, the evidence says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import StoreError
from featurestore.evidence.records import DocumentEvidence, FeatureEvidence, Token
from ray_jobs.evidence.agreement import checked, stored_values
from ray_jobs.evidence.store_bundle import store_bundle, store_settings
from ray_jobs.evidence.texts import StoredDocument, stored_documents

if TYPE_CHECKING:
    from featurestore.reader import FeatureStore
    from ray_jobs.backbone.bundle import Bundle
    from ray_jobs.engine.extractor import ExtractSettings
    from ray_jobs.engine.token_values import TokenValues

Wanted = Mapping[str, Sequence[tuple[str, int]]]
"""Id of a document -> (name of an SAE, index of a feature) of each feature asked for."""


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
    stored = stored_documents(store, list(wanted), texts)
    known = {doc_id: document.text for doc_id, document in stored.items() if document.text is not None}
    pooled = stored_values(store, {doc_id: wanted[doc_id] for doc_id in known})
    run: Iterator[DocumentEvidence] = iter(())
    if known:
        opened = bundle or store_bundle(store.plan, store.uri, say)
        run = token_evidence(opened, store_settings(store.plan, store.uri), known, wanted)
    for doc_id in wanted:
        if doc_id not in known:
            yield DocumentEvidence(doc_id, (), (), _missing(doc_id, stored[doc_id]))
            continue
        document = next(run)
        yield checked(document, stored[doc_id].n_tokens, pooled, store) if document.problem is None else document


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
