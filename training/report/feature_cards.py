"""The features that decide, one card each: for which class, how much, with evidence for and against.

A feature has a name only where somebody or something gave it one, and the card says who. Evidence are documents with
the tokens that fired marked; where they were not gathered, the beginning of the text stands instead and the page says
what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featurestore.evidence.records import DocumentEvidence
from training.output.explained import carried
from training.report.elements.charts import Scale
from training.report.elements.figures import percent, significant, whole
from training.report.elements.marked import Marked, marked
from training.report.naming import alike_names, key_of
from training.report.study_files import StudyFiles

KINDS = {
    "documents": ("Where it is strongest", "training documents with the largest pooled values"),
    "random": ("Drawn from all where it fires", "what it does as a rule; the strongest flatter every feature"),
    "counter": ("Against it", "the strongest documents of other classes than the one it speaks for"),
}

Name = Mapping[str, Any]  # text, source, kind ("explanation" or "keywords")


def features_section(study: StudyFiles, names: Mapping[str, Name]) -> dict[str, Any] | None:
    """A card for each feature of the explanation, and how they add up for each class.

    Args:
        study: The study.
        names: "SAE:index" -> its name with its source; features without one are left out.
    """
    explanation = study.explanation
    if explanation is None:
        return None
    features: Sequence[Mapping[str, Any]] = explanation.get("features") or []
    most = max((f["weight"] for f in features), default=1.0) or 1.0
    private = study.private or bool(explanation.get("private"))
    cards = [_card(study, feature, i, most, names, private) for i, feature in enumerate(features)]
    there = {card["name"] for card in cards}
    for other in (other for card in cards for other in (*card["copies"], *card["alike"])):
        other["anchor"] = anchor(other["name"]) if other["name"] in there else None
    looked = [e for card in cards for kind in card["kinds"] for e in kind["examples"]]
    marks = sum(e["marked"] is not None for e in looked)
    return {
        "method": explanation["method"],
        "weight": explanation["weight"],
        "documents": whole(explanation["documents"]),
        "deciding": whole(explanation["deciding"]) if explanation.get("deciding") else "",
        "covered": "" if (listed := carried(features)) is None else percent(listed["share"]),
        "parameter": explanation.get("parameter"),
        "value": significant(explanation.get("value", explanation.get("C"))),
        "pool": explanation.get("pool"),
        "cards": cards,
        "classes": [(c, [card for card in cards if card["toward"] == c]) for c in _classes(study, features)],
        "private": private,
        "unmarked": len(looked) - marks,
        "marks": marks,
        "texts": any(e["text"] for e in looked if e["marked"] is None),
        "images": study.of_images,
        "unnamed": sum(card["label"] is None for card in cards),
    }


def anchor(name: str) -> str:
    """The place of a feature on the page: letters, digits and "-" only, whatever its SAE is called."""
    return "f-" + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in name)


def _classes(study: StudyFiles, features: Sequence[Mapping[str, Any]]) -> list[str]:
    there = {f["toward"] for f in features}
    return [name for name in study.classes if name in there]


def _card(
    study: StudyFiles, feature: Mapping[str, Any], i: int, most: float, names: Mapping[str, Name], private: bool
) -> dict[str, Any]:
    kinds = [] if private else _kinds(study, feature)
    intervals = feature.get("document_interval") or {}
    counts = feature.get("document_counts") or {}
    scale = Scale(0.0, 1.0)
    frequency = [
        {
            "class": name,
            "share": percent(share),
            "count": f"{counts[name][0]:,} of {counts[name][1]:,}" if name in counts else "",
            "svg": scale.row({"value": share, **dict(zip(("low", "high"), intervals.get(name, ()), strict=False))},
                             "sae" if name == feature["toward"] else "none"),
            "bounds": " to ".join(percent(end) for end in intervals.get(name, ())),
        }
        for name, share in list(feature["document_frequency"].items())[:12]
    ]  # fmt: skip
    return {
        "name": feature["name"],
        "anchor": anchor(feature["name"]),
        "rank": i + 1,
        "label": names.get(feature["name"]),
        "toward": feature["toward"],
        "weight": significant(feature["weight"]),
        "coefficient": significant(feature["coefficient"]),
        "share": percent(feature.get("share")),
        "bar": max(round(feature["weight"] / most * 20), 1),
        "frequency": frequency,
        "more": max(len(feature["document_frequency"]) - 12, 0),
        "flags": feature.get("flags") or [],
        "copies": [{"name": c["name"], "r": significant(c["correlation"])} for c in feature.get("copies") or []],
        "alike": [
            {"name": name, "cosine": significant(cosine)} for name, cosine in alike_names(study, feature["name"])
        ],
        "kinds": kinds,
    }


def _kinds(study: StudyFiles, feature: Mapping[str, Any]) -> list[dict[str, Any]]:
    key = key_of(feature["name"])
    there = {kind: feature.get(kind) or [] for kind in KINDS}
    found = {d["doc_id"]: study.evidence.find(d["doc_id"], *key) for ds in there.values() for d in ds}
    top = max((one.features[0].max for one in found.values() if one is not None), default=0.0)
    return [
        {
            "title": title,
            "about": about,
            "examples": [_example(d, found[d["doc_id"]], key, top) for d in there[kind]],
        }
        for kind, (title, about) in KINDS.items()
        if there[kind]
    ]


def _example(
    document: Mapping[str, Any], evidence: DocumentEvidence | None, key: tuple[str, int], top: float
) -> dict[str, Any]:
    shown: Marked | None = None
    if evidence is not None and evidence.tokens:
        shown = marked(evidence, {key: top}, {key: "a"})
    return {
        "doc_id": document["doc_id"],
        "label": document["label"],
        "value": significant(document["value"], 4),
        "text": document["text"],
        "marked": shown if shown is not None and shown.spans else None,
        "problem": None if evidence is None else evidence.problem,
    }


def errors_section(study: StudyFiles, names: Mapping[str, Name]) -> dict[str, Any] | None:
    """The worst errors with the features that misled the model, their tokens marked."""
    explanation = study.explanation
    if explanation is None or "errors" not in explanation:
        return None
    known = {f["name"] for f in explanation.get("features") or ()}
    private = study.private or bool(explanation.get("private"))
    return {
        "seed": explanation["seed"],
        "private": private,
        "images": study.of_images,
        "rows": [_error(study, error, names, known, private) for error in explanation["errors"]],
    }


def _error(
    study: StudyFiles, error: Mapping[str, Any], names: Mapping[str, Name], known: set[str], private: bool
) -> dict[str, Any]:
    reasons = [
        {
            "name": reason["name"],
            "label": names.get(reason["name"]),
            "anchor": anchor(reason["name"]) if reason["name"] in known else None,
            "push": significant(reason["push"]).replace("\u2212", ""),
            "misled": reason["push"] > 0,
        }
        for reason in error.get("reasons") or ()
    ]
    return {
        "doc_id": None if private else error["doc_id"],
        "label": error["label"],
        "predicted": error["predicted"],
        "probability": percent(error.get("probability")),
        "text": None if private else error["text"],
        "marked": None if private else _marked_error(study, error),
        "reasons": reasons,
    }


def _marked_error(study: StudyFiles, error: Mapping[str, Any]) -> Marked | None:
    """The text of an error, with the tokens of what misled on one side and of what spoke for the truth on the other."""
    sides = {key_of(reason["name"]): "a" if reason["push"] > 0 else "b" for reason in error.get("reasons") or ()}
    found = [one for key in sides if (one := study.evidence.find(error["doc_id"], *key)) is not None and one.tokens]
    if not found:
        return None
    document = DocumentEvidence(
        found[0].doc_id,
        found[0].tokens,
        tuple(f for one in found if one.tokens == found[0].tokens for f in one.features),
    )
    shown = marked(document, {}, sides)
    return shown if shown.spans else None
