"""Evidence beside a study, so that its report can be made again where neither model nor text is.

One JSON file for a document, `STUDY/evidence/DOCUMENT-SOURCE.json`, named after the sha256 of its id and of what
computed the values (bundle and token policy, see `source`). It says the sha256 of the text too, so evidence of another
text is never taken for that of this one. The same evidence gives the same bytes, in whatever order it was written.
Files are checked when they are read; one that is damaged counts as missing, as a cache may.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from featurestore.base.json_text import json_text
from featurestore.evidence.records import DocumentEvidence, from_json, to_json
from featurestore.format.store_plan import canonical_json
from featurestore.storage.files import atomic_write, list_files, reached, read_json

FORMAT, VERSION = "sparsemill.evidence", 1
EVIDENCE = "evidence"  # the directory beside a study
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGITS = 32  # of a sha256 in a file's name: 128 bits


class EvidenceCache:
    """The evidence of a study: `EvidenceCache("toxicity-study/evidence")`.

    Args:
        directory: Path or URL; made by the first write.
        private: Whether nothing is to be written: evidence holds text.
    """

    def __init__(self, directory: str | os.PathLike[str], private: bool = False) -> None:
        self.directory = os.fspath(directory)
        self.private = private
        self._names: set[str] | None = None  # of the files that are there

    def read(
        self, doc_id: str, text_sha256: str | None, features: Iterable[tuple[str, int]], source: str | None = None
    ) -> DocumentEvidence | None:
        """The evidence of a document for all of certain features.

        Args:
            doc_id: Which document.
            text_sha256: Of its text in UTF-8 (`text_sha256`); None accepts any, for readers without it.
            features: Of (name of the SAE, index of the feature); the result has them in this order.
            source: Of what the values must come from (`source`); None accepts any.

        Returns:
            None where one of them is missing, or was computed from another text or source.
        """
        wanted = list(features)
        return next(
            (
                found
                for entry in self._entries(doc_id, source)
                if text_sha256 in (None, entry["text_sha256"]) and (found := entry["document"].only(wanted)) is not None
            ),
            None,
        )

    def find(self, doc_id: str, sae: str, feature: int, source: str | None = None) -> DocumentEvidence | None:
        """The evidence of a document for one feature, for readers without its text; None where it is missing."""
        return self.read(doc_id, None, [(sae, feature)], source)

    def kept(self, doc_id: str, source: str | None = None) -> list[DocumentEvidence]:
        """All that is kept of a document, a record for each source, or for one."""
        return [entry["document"] for entry in self._entries(doc_id, source)]

    def write(self, document: DocumentEvidence, text_sha256: str, source: str) -> None:
        """Keep evidence; features of the same text and source that are kept already stay.

        Args:
            document: What to keep.
            text_sha256: Of its text.
            source: Of what the values come from.

        Raises:
            OSError: Storage refused.
        """
        if self.private:
            return
        features, problems = list(document.features), [document.problem]
        for entry in self._entries(document.doc_id, source):
            if entry["text_sha256"] == text_sha256 and entry["document"].tokens == document.tokens:
                features, problems = [*entry["document"].features, *features], [entry["document"].problem, *problems]
        by_name = {(feature.sae, feature.feature): feature for feature in features}  # the new one, if it is there twice
        document = replace(
            document,
            features=tuple(by_name[name] for name in sorted(by_name)),
            problem="; ".join(dict.fromkeys(filter(None, problems))) or None,
        )
        there = {"format": FORMAT, "version": VERSION, "source": source, "text_sha256": text_sha256}
        fs, root = reached(self.directory)
        name = f"{_prefix(document.doc_id)}{source[:_DIGITS]}.json"
        atomic_write(fs, f"{root}/{name}", (json_text(there | {"document": to_json(document)}) + "\n").encode())
        self._listed().add(name)

    def _entries(self, doc_id: str, source: str | None) -> list[dict[str, Any]]:
        """The files of a document that hold what they should, `document` as a record."""
        prefix = _prefix(doc_id)
        names = sorted(name for name in self._listed() if name.startswith(prefix))
        entries = [entry for name in names if (entry := self._entry(name)) is not None]
        return [
            entry
            for entry in entries
            if entry["document"].doc_id == doc_id and (source is None or entry["source"] == source)
        ]

    def _entry(self, name: str) -> dict[str, Any] | None:
        fs, root = reached(self.directory)
        try:
            entry = read_json(fs, f"{root}/{name}")
            if not isinstance(entry, Mapping) or (entry.get("format"), entry.get("version")) != (FORMAT, VERSION):
                return None
            if any(not _SHA256.fullmatch(entry[key]) for key in ("source", "text_sha256")):
                return None
            return {**entry, "document": from_json(entry["document"])}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _listed(self) -> set[str]:
        if self._names is None:
            fs, root = reached(self.directory)
            self._names = set()
            with contextlib.suppress(OSError):  # something that is no directory has no files
                self._names = set(list_files(fs, root))
        return self._names


def text_sha256(text: str) -> str:
    """Hex sha256 of a document's text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def source(identity: Mapping[str, Any]) -> str:
    """Hex sha256 of what decides a token's activations, from a store's identity (`StorePlan.identity`).

    Bundle, SAEs by their encoders' sha256, token policy and attention decide them; corpus, poolings and units do not.
    """
    return hashlib.sha256(canonical_json({key: identity.get(key) for key in ("bundle", "model", "saes")})).hexdigest()


def _prefix(doc_id: str) -> str:
    return hashlib.sha256(doc_id.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS] + "-"
