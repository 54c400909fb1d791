"""The evidence beside a study as a page asks for it: one feature of one document at a time, each file read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from featurestore.evidence.alike_file import Alike, read_alike
from featurestore.evidence.cache import EVIDENCE, EvidenceCache, source
from featurestore.evidence.records import DocumentEvidence, FeatureEvidence


@dataclass(frozen=True)
class KeptEvidence:
    """What `EvidenceCache` holds, remembered while a page is made.

    Attributes:
        cache: Beside the study.
        source: Of what values must come from (`featurestore.evidence.cache.source`); None accepts any.
    """

    cache: EvidenceCache
    source: str | None = None
    _read: dict[str, dict[tuple[str, int], tuple[DocumentEvidence, FeatureEvidence]]] = field(default_factory=dict)

    @classmethod
    def beside(cls, study: str, header: Any) -> Self:
        """The evidence of a study for what its model reads: another store's SAE may have the same name.

        Args:
            study: Directory or URL.
            header: Of its model of features, whatever its file holds; without one any evidence counts.
        """
        trained = header.get("trained_on") if isinstance(header, dict) else None
        identity = trained.get("identity") if isinstance(trained, dict) else None
        cache = EvidenceCache(f"{study.rstrip('/')}/{EVIDENCE}")
        return cls(cache, source(identity) if isinstance(identity, dict) else None)

    def find(self, doc_id: str, sae: str, feature: int) -> DocumentEvidence | None:
        """The evidence of a document for one feature; None where it is missing."""
        found = self._of(doc_id).get((sae, feature))
        if found is None:
            return None
        document, one = found
        return DocumentEvidence(document.doc_id, document.tokens, (one,), document.problem)

    def alike(self, sae: str, feature: int) -> list[tuple[int, float]]:
        """Features of the same SAE whose encoder rows nearly agree with one's, with the cosine; most alike first."""
        return list(self._alike.get(sae, {}).get(feature, ()))

    @cached_property
    def _alike(self) -> Alike:
        return read_alike(self.cache.directory, self.source)

    def _of(self, doc_id: str) -> dict[tuple[str, int], tuple[DocumentEvidence, FeatureEvidence]]:
        if doc_id not in self._read:
            self._read[doc_id] = {
                (one.sae, one.feature): (document, one)
                for document in reversed(self.cache.kept(doc_id, self.source))  # the first in doubt
                for one in document.features
            }
        return self._read[doc_id]
