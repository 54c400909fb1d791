"""Names of the features on a page, each with who gave it: those of this machine's tables, else keywords.

Names from evidence are made here, from the tokens kept beside the study, so they need nothing else. In a private study
keywords are words of the texts, and a generator saw them, so only imported names are shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from featurestore.errors import SparsemillError
from featurestore.evidence.cache import EvidenceCache
from featurestore.evidence.records import DocumentEvidence
from featurestore.names.keywords import keyword_name, keywords
from featurestore.names.table import FeatureName, NameTable
from training.report.study_files import StudyFiles, read_study

EXAMPLES = ("documents", "random", "counter")
SAID = {"imported": "imported", "generated": "generated", "evidence": "keywords"}


def wanted_evidence(explanation: Mapping[str, Any]) -> dict[str, list[tuple[str, int]]]:
    """Which documents an explanation shows, and which features each is shown for.

    Returns:
        Id of a document -> (SAE, feature) of each feature, in settled order.
    """
    found: dict[str, set[tuple[str, int]]] = {}
    for feature in explanation["features"]:
        for kind in EXAMPLES:
            for document in feature.get(kind) or ():
                found.setdefault(document["doc_id"], set()).add(key_of(feature["name"]))
    for error in explanation.get("errors") or ():
        keys = {key_of(reason["name"]) for reason in error.get("reasons") or ()}
        if keys:
            found.setdefault(error["doc_id"], set()).update(keys)
    return {doc_id: sorted(keys) for doc_id, keys in found.items()}


def missing_evidence(uri: str) -> tuple[EvidenceCache, dict[str, dict[str, list[tuple[str, int]]]]]:
    """What the report of a study shows and nobody has computed yet.

    Returns:
        The cache beside the study, and URI of a store -> what `wanted_evidence` says; none for a private study.
    """
    study = read_study(uri)
    if study.explanation is None or study.private:
        return study.evidence.cache, {}
    wanted = {
        doc_id: keys
        for doc_id, keys in wanted_evidence(study.explanation).items()
        if any(study.evidence.find(doc_id, *key) is None for key in keys)
    }
    store = str(study.explanation.get("store") or study.store)
    return study.evidence.cache, {store: wanted} if wanted else {}


def shown_features(uri: str) -> tuple[str, str, dict[str, list[int]]]:
    """What the report of a study shows features of.

    Returns:
        The directory of its evidence, the URI of the store, and SAE -> features in ascending order.
    """
    study = read_study(uri)
    found: dict[str, set[int]] = defaultdict(set)
    explanation = study.explanation or {}
    for feature in explanation.get("features") or ():
        sae, index = key_of(feature["name"])
        found[sae].add(index)
    store = str(explanation.get("store") or study.store)
    return study.evidence.cache.directory, store, {sae: sorted(features) for sae, features in sorted(found.items())}


def feature_names(study: StudyFiles) -> dict[str, dict[str, str]]:
    """ "SAE:index" -> its name: text, source ("imported", "generated", "keywords") and by (who, or "")."""
    if study.explanation is None:
        return {}
    by_sae: dict[str, set[int]] = defaultdict(set)
    shown = [feature["name"] for feature in study.explanation.get("features") or ()]
    shown += [r["name"] for e in study.explanation.get("errors") or () for r in e.get("reasons") or ()]
    for name in shown:
        sae, index = key_of(name)
        by_sae[sae].add(index)
    found: dict[str, FeatureName] = {}
    evidence = [] if study.private else _evidence(study)
    for sae, features in sorted(by_sae.items()):
        known = _table(study, sae, features)
        if study.private:
            known = {n: name for n, name in known.items() if name.source == "imported"}
        for n, words in keywords(evidence, sae, sorted(features - known.keys())).items():
            if (name := keyword_name(n, words)) is not None:
                known[n] = name
        found |= {f"{sae}:{n}": name for n, name in known.items()}
    return {
        key: {"text": n.text, "source": SAID[n.source], "by": "" if n.source == "evidence" else n.explainer or ""}
        for key, n in found.items()
    }


def _evidence(study: StudyFiles) -> list[DocumentEvidence]:
    """All evidence of the documents that the explanation shows."""
    assert study.explanation is not None
    found = []
    for doc_id, keys in wanted_evidence(study.explanation).items():
        features = [one for key in keys if (one := study.evidence.find(doc_id, *key)) is not None and one.tokens]
        if features:
            first = features[0]
            mine = tuple(f for one in features if one.tokens == first.tokens for f in one.features)
            found.append(DocumentEvidence(doc_id, first.tokens, mine))
    return found


def _table(study: StudyFiles, sae: str, features: Iterable[int]) -> dict[int, FeatureName]:
    """What this machine's table of an SAE says, where the model file knows which SAE it is."""
    header = study.models.get("sae") or {}
    sha256 = ((header.get("bundle") or {}).get("saes") or {}).get(sae, {}).get("sha256")
    d_sae = (header.get("trained_on") or {}).get("d_sae", {}).get(sae)
    if not isinstance(sha256, str) or not isinstance(d_sae, int):
        return {}
    try:
        return NameTable.open(sha256, d_sae).best(features)
    except (SparsemillError, OSError):
        return {}  # a table that is damaged names nothing here; `sparsemill names` says what is wrong with it


def alike_names(study: StudyFiles, name: str) -> list[tuple[str, float]]:
    """ "SAE:index" of the features whose encoder rows nearly agree with one's, with the cosine."""
    sae, index = key_of(name)
    return [(f"{sae}:{other}", cosine) for other, cosine in study.evidence.alike(sae, index)]


def key_of(name: str) -> tuple[str, int]:
    """(SAE, feature) of "l12_16k:2471"."""
    sae, _, index = name.rpartition(":")
    return sae, int(index)
