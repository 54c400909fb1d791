"""Gather all the evidence that a study shows of one store: from its cache where it is there, else computed and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from featurestore.errors import SparsemillError
from featurestore.evidence.cache import EvidenceCache, source, text_sha256
from featurestore.evidence.records import DocumentEvidence
from featurestore.reader import FeatureStore
from featurestore.url_secrets import shown
from ray_jobs.evidence.compute import Wanted, check_features, compute_evidence
from ray_jobs.evidence.texts import stored_documents


def gather_evidence(
    store_uri: str, wanted: Wanted, cache: EvidenceCache, say: Callable[[str], None] | None = None
) -> dict[str, DocumentEvidence]:
    """The evidence of documents of a store; what was missing in the cache is there afterwards, unless it is private.

    A bundle or a text that is gone is no error here: cached evidence stands in for it, which is what the cache is for,
    and documents without have a `problem` that says what is missing.

    Args:
        store_uri: Directory or URL of the store.
        wanted: Id of a document -> (SAE, feature) of each feature asked for.
        cache: The study's.
        say: Called with a line of text before every slow step.

    Returns:
        Id -> evidence with the features in the order asked for, in the order of `wanted`.

    Raises:
        StoreError: The store cannot be read, or a document, SAE or feature is not in it.
    """
    store = FeatureStore.open(store_uri, partial=True)
    check_features(store, wanted)
    origin = source(store.plan.identity)
    documents = stored_documents(store, list(wanted))
    texts = {doc_id: document.text for doc_id, document in documents.items() if document.text is not None}
    sha256 = {doc_id: text_sha256(text) for doc_id, text in texts.items()}
    found: dict[str, DocumentEvidence] = {}
    for doc_id, features in wanted.items():
        if (cached := cache.read(doc_id, sha256.get(doc_id), features, origin)) is not None:
            found[doc_id] = cached
    missing = {doc_id: features for doc_id, features in wanted.items() if doc_id not in found}
    try:
        for document in compute_evidence(store, missing, texts, say=say):
            found[document.doc_id] = document
            if document.tokens:
                with contextlib.suppress(OSError):  # a cache that cannot be written costs time later, nothing else
                    cache.write(document, sha256[document.doc_id], origin)
    except (SparsemillError, ModuleNotFoundError) as exc:
        reason = str(exc)
        if isinstance(exc, ModuleNotFoundError):
            needs = f"needs the package '{exc.name}'; install sparsemill[extract]"
            reason = f"running documents of {shown(store_uri)} again {needs}"
        for doc_id in missing:
            found.setdefault(doc_id, DocumentEvidence(doc_id, (), (), reason))
    return {doc_id: found[doc_id] for doc_id in wanted}
