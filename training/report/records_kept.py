"""What stands behind the figures: who was left out and why, what it cost, and every hash that decides a number.

Costs come from what the runs of the store left in it, not from a clock: making the page again changes none of them. A
store that cannot be reached is said, and the rest of the page stands without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featurestore.base.number_words import counted, size, span
from featurestore.errors import SparsemillError
from featurestore.reader import FeatureStore
from featurestore.storage.files import shown
from training.documents.labels import REASONS
from training.report.elements.figures import percent, whole
from training.report.study_files import StudyFiles


def documents_section(study: StudyFiles) -> dict[str, Any]:
    """Classes with their shares, who was left out, near-duplicates, and what the study warns of."""
    documents = study.summary["documents"]
    total = max(sum(documents["classes"].values()), 1)
    near = documents.get("near_duplicates")
    return {
        "used": whole(documents["used"]),
        "rows": whole(study.summary["store"]["rows"]),
        "classes": [(name, whole(n), percent(n / total)) for name, n in documents["classes"].items()],
        "left_out": [(REASONS.get(reason, reason), whole(n)) for reason, n in documents["left_out"].items() if n],
        "truncated": documents.get("truncated") or 0,
        "groups": documents.get("groups"),
        "group": study.summary["spec"]["split"].get("group"),
        "near": None
        if near is None
        else {**near, "straddling": f"{near['would_have_straddled_on_average'] or 0:,.1f}"},
        "warnings": study.summary["split"].get("warnings") or [],
        "notes": [] if study.private else documents.get("notes") or [],
        "test_set": study.summary["test_set"],
        "intervals": {**study.summary["intervals"], "resamples": whole(study.summary["intervals"]["resamples"])},
        "selection": study.summary["selection"],
    }


def costs_section(uri: str, fingerprint: str | None = None) -> dict[str, Any]:
    """What a store took, from the records that its runs left: worker time, tokens, bytes.

    Args:
        uri: The store.
        fingerprint: Of the store that is meant; another one at the same place is not it.
    """
    from featurestore.checks.run_files import read_notes

    try:
        store = FeatureStore.open(uri)
        if fingerprint is not None and store.fingerprint != fingerprint:
            return {"problem": "the store at its place is another one now, so nothing is said of its costs"}
        status = store.status()
        notes = read_notes(uri, {unit: store.part_bytes(unit) for unit in store.units})
    except (SparsemillError, OSError):
        return {"problem": "the store cannot be opened from here, so nothing is said of its costs"}
    seconds, tokens = (sum(getattr(note, what) for note in notes.values()) for what in ("seconds", "tokens"))
    entries = [
        ("documents", whole(status.rows_done), f"{status.errors:,} with an error"),
        ("tokens", whole(status.tokens), f"{status.tokens / max(status.rows_done, 1):,.0f} a document"),
        ("store", size(status.bytes), f"{size(status.bytes / max(status.rows_done, 1))} a document"),
    ]
    if seconds:
        noted = "" if len(notes) == status.units else f"of {len(notes)} of {counted(status.units, 'unit')}"
        entries.append(("worker time", span(seconds), noted))
        entries.append(("rate", f"{tokens / seconds:,.0f} tokens/s", "of a worker"))
    return {"problem": None, "entries": entries, "noted": bool(seconds)}


def provenance_section(study: StudyFiles) -> dict[str, Any]:
    """Model, encoders, split and files by their hashes, versions of libraries, and the study as it was asked for."""
    summary = study.summary
    header = study.models.get("sae") or study.models.get("baseline") or {}
    bundle = header.get("bundle") or {}
    model = bundle.get("model") or {}
    entries = [
        ("store fingerprint", summary["store"]["fingerprint"]),
        ("split", summary["split"]["sha256"]),
    ]
    entries += [] if study.private else [("store", shown(study.store))]
    entries += [(f"model {key}", model[key]) for key in ("revision", "dtype") if model.get(key)]
    entries += [("model", model["name"])] if model.get("name") and not study.private else []
    return {
        "entries": entries,
        "saes": [sae_source(str(name), sae, study.private) for name, sae in (bundle.get("saes") or {}).items()],
        "files": sorted(study.sha256.items()),
        "versions": sorted((summary.get("versions") or {}).items()),
        "spec": "" if study.private else _yaml(summary["spec"]),
    }


def sae_source(name: str, sae: Mapping[str, Any], private: bool) -> dict[str, Any]:
    """Where an SAE comes from, of what `bundle_sources` says of it."""
    hook = sae.get("hook") or {}
    source = " ".join(str(sae[key]) for key in ("release", "id") if sae.get(key))
    return {
        "name": name,
        "sha256": sae.get("sha256") or "",
        "hook": f"{hook['site']} of layer {hook['layer']}" if "layer" in hook and "site" in hook else "",
        "source": source or ("" if private else str(sae.get("path") or "")),
        "revision": sae.get("revision") or "",
    }


def _yaml(spec: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True, width=100))
