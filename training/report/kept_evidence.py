"""The evidence beside a study as a page asks for it: one feature of one document at a time, each file read once."""

from __future__ import annotations

from dataclasses import dataclass, field

from featurestore.evidence.cache import EvidenceCache
from featurestore.evidence.records import DocumentEvidence, FeatureEvidence


@dataclass(frozen=True)
class KeptEvidence:
    """What `EvidenceCache` holds, remembered while a page is made."""

    cache: EvidenceCache
    _read: dict[str, dict[tuple[str, int], tuple[DocumentEvidence, FeatureEvidence]]] = field(default_factory=dict)

    def find(self, doc_id: str, sae: str, feature: int) -> DocumentEvidence | None:
        """The evidence of a document for one feature; None where it is missing."""
        found = self._of(doc_id).get((sae, feature))
        if found is None:
            return None
        document, one = found
        return DocumentEvidence(document.doc_id, document.tokens, (one,), document.problem)

    def _of(self, doc_id: str) -> dict[tuple[str, int], tuple[DocumentEvidence, FeatureEvidence]]:
        if doc_id not in self._read:
            self._read[doc_id] = {
                (one.sae, one.feature): (document, one)
                for document in reversed(self.cache.kept(doc_id))  # the first in doubt
                for one in document.features
            }
        return self._read[doc_id]
