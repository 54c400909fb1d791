"""What a study writes for people when its text is private: no text, no id that could name a file, no name of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

EXAMPLES = ("documents", "random", "counter")


def without_text(explanation: Mapping[str, Any]) -> dict[str, Any]:
    """An explanation without texts; ids are hashes, by which whoever has the corpus finds the documents again."""
    features = [{**f, **{kind: [_hidden(d) for d in f[kind]] for kind in EXAMPLES}} for f in explanation["features"]]
    errors = [_hidden(error) for error in explanation.get("errors", ())]
    return {**explanation, "private": True, "store": None, "features": features, "errors": errors}


def without_file_names(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A store's identity without the names of its corpus' files; their hashes stay."""
    corpus = identity.get("corpus")
    if not isinstance(corpus, Mapping):
        return dict(identity)
    files = [{key: file[key] for key in file if key != "name"} for file in corpus.get("files") or ()]
    return {**identity, "corpus": {**corpus, "files": files}}


def _hidden(document: Mapping[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(str(document["doc_id"]).encode("utf-8", "surrogatepass")).hexdigest()
    return {**document, "doc_id": f"sha256:{digest[:16]}", "text": None}
