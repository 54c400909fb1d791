"""The explanation in a model file for a terminal: narrowed to what was asked, with tokens from beside the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featurestore.base.did_you_mean import did_you_mean
from featurestore.errors import StudyError
from featurestore.evidence.records import DocumentEvidence
from featurestore.models.model import load_model
from training.output.explained import carried
from training.report.elements.marked import marked
from training.report.kept_evidence import KeptEvidence
from training.report.naming import EXAMPLES, alike_names, key_of
from training.report.study_files import StudyFiles

POOLS = ("max", "sum", "mean", "count", "last")  # what the values of tokens give


def explained(path: str) -> StudyFiles:
    """A model file as the study that it was written by: its explanation, and the evidence kept there.

    Raises:
        StudyError: There is no such model, or it is one of no features.
    """
    model = load_model(path)
    explanation = model.header.get("explanation")
    if not isinstance(explanation, dict):
        raise StudyError(f"{path}: is a model of {model.header['method']}, which has no features to name")
    study = str(path).replace("\\", "/").rpartition("/")[0].rpartition("/")[0] or "."
    return StudyFiles(
        uri=study,
        summary={},
        rows=(),
        explanation=explanation,
        models={"sae": model.header},
        sha256={},
        evidence=KeptEvidence.beside(study, model.header),
        private=bool(explanation.get("private")),
    )


def narrowed(study: StudyFiles, top: int | None, toward: str | None, pool: str | None) -> dict[str, Any]:
    """The explanation with the `top` features of each class (all if None), or of one, examples by another pooling.

    Raises:
        StudyError: There is no such class, or no tokens are kept to pool.
    """
    assert study.explanation is not None
    explanation = dict(study.explanation)
    features: Sequence[Mapping[str, Any]] = explanation["features"]
    classes = [str(name) for name in explanation.get("classes") or dict.fromkeys(f["toward"] for f in features)]
    if toward is not None and toward not in classes:
        there = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise StudyError(f"--toward: there is no class '{toward}'; there are: {there}{did_you_mean(toward, classes)}")
    kept = list(features)
    if top is not None or toward is not None:
        shown = [toward] if toward is not None else classes
        kept = [feature for name in shown for feature in [f for f in features if f["toward"] == name][:top]]
    kept = [_with_alike(study, feature) for feature in kept]
    if pool is not None:
        kept = [_pooled(study, feature, pool) for feature in kept]
        explanation["shown_by"] = pool
    listed = carried(features)
    return {**explanation, "features": kept, **({} if listed is None else {"listed": listed})}


def _with_alike(study: StudyFiles, feature: Mapping[str, Any]) -> dict[str, Any]:
    alike = alike_names(study, feature["name"])
    found = [{"name": name, "cosine": cosine} for name, cosine in alike]
    return {**feature, "alike": found} if found else dict(feature)


def _pooled(study: StudyFiles, feature: Mapping[str, Any], pool: str) -> dict[str, Any]:
    found = dict(feature)
    for kind in EXAMPLES:
        documents = []
        for document in feature.get(kind) or ():
            evidence = study.evidence.find(document["doc_id"], *key_of(feature["name"]))
            if evidence is None or not evidence.tokens:
                raise StudyError(
                    f"--pool: the tokens of document '{document['doc_id']}' are not kept beside the study; "
                    "run the study again where its model can be built, or leave --pool out"
                )
            documents.append({**document, "value": pooled_value(evidence, pool)})
        if kind in feature:
            found[kind] = documents if kind == "random" else sorted(documents, key=lambda d: -d["value"])
    return found


def pooled_value(evidence: DocumentEvidence, pool: str) -> float:
    """One pooling of the only feature of a document's evidence, over the tokens that count."""
    values = [v for v, t in zip(evidence.features[0].values, evidence.tokens, strict=True) if t.pooled]
    if not values:
        return 0.0
    if pool == "last":
        return values[-1]
    if pool == "count":
        return float(sum(v > 0 for v in values))
    return max(values) if pool == "max" else sum(values) / (len(values) if pool == "mean" else 1)


def marked_texts(study: StudyFiles, explanation: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """(doc_id, name of a feature) -> the text around its strongest token, the tokens that fired in «»."""
    found = {}
    for feature in explanation["features"]:
        key = key_of(feature["name"])
        for kind in EXAMPLES:
            for document in feature.get(kind) or ():
                evidence = study.evidence.find(document["doc_id"], *key)
                if evidence is not None and evidence.tokens:
                    shown = marked(evidence, {}, {}, before=8)
                    words = "".join(f"«{span.text}»" if span.strength else span.text for span in shown.spans)
                    found[document["doc_id"], feature["name"]] = f"{'…' if shown.before else ''}{words.strip()}"
    return found
