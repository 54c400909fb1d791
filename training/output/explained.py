"""The explanation of a model on a terminal: whether there is anything to explain, then class by class what decides."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from featurestore.base.hostile_text import running
from featurestore.base.terminal import cut_to, page_width

WIDTH = 110  # of a line in files, where nothing says how wide they are looked at
LEAST = 80  # a text is worth a second line where lines are short
TOP = 5  # features of a class that a screen shows
OF_A_STUDY = 10  # of all classes on a study's page: ten lines each, and further ones would push its verdict away
SHOWN = ("documents", "random", "counter")
SAYS = {"documents": "strongest", "random": "drawn", "counter": "against"}


def format_explanation(
    explanation: Mapping[str, Any],
    names: Mapping[str, Mapping[str, str]] | None = None,
    marked: Mapping[tuple[str, str], str] | None = None,
    top: int | None = None,
) -> str:
    """The deciding features of each class with documents for and against, ready to print.

    Args:
        explanation: What `training.output.explain` made.
        names: "SAE:index" -> its name: text, source, by.
        marked: (doc_id, name of a feature) -> the text around its strongest token, tokens marked.
        top: Features of each class; all that are there by default.
    """
    lines = _majority(explanation.get("majority"))
    value = explanation["value"] if "value" in explanation else explanation["C"]  # the latter in earlier versions
    chosen = f", {explanation['parameter']} = {value:g}" if explanation["parameter"] else ""
    of = "all labelled documents" if explanation.get("refit") else f"training documents of seed {explanation['seed']}"
    lines.append(f"Features that decide most in {explanation['method']} ({of}{chosen}):")
    features: Sequence[Mapping[str, Any]] = explanation["features"]
    lines += _carried(explanation, features, top)
    for name in dict.fromkeys(f["toward"] for f in features):
        for feature in [f for f in features if f["toward"] == name][:top]:
            lines += _feature(feature, names or {}, marked or {})
    if not features:
        lines.append("  none: the model weighs no feature")
    return "\n".join(lines)


def carried(features: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How many features are listed, and which share of the decision they carry; None in earlier versions' files."""
    if not features or "share" not in features[0]:
        return None
    return {"features": len(features), "share": sum(feature["share"] or 0.0 for feature in features)}


def _carried(explanation: Mapping[str, Any], features: Sequence[Mapping[str, Any]], top: int | None) -> list[str]:
    """Which share of the decision the kept features carry, as the report says it, and those below if fewer are."""
    listed, deciding = explanation.get("listed") or carried(features), explanation.get("deciding")
    if listed is None or not deciding:
        return []
    classes = dict.fromkeys(f["toward"] for f in features)
    below = carried([f for name in classes for f in [f for f in features if f["toward"] == name][:top]])
    few = below is not None and below["features"] < listed["features"]
    rest = f", the {below['features']} below {_percent(below['share'])}" if few and below is not None else ""
    heaviest = f"the {listed['features']} that are kept carry {_percent(listed['share'])} of the decision"
    return [f"  {deciding:,} features have weight in it; {heaviest}{rest}"]


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 or 0.9 < share < 1 else f"{share:.0%}"


def top_of_a_study(explanation: Mapping[str, Any]) -> int:
    """How many features of each class a study's page shows: fewer where there are many classes, but one of each."""
    classes = len({feature["toward"] for feature in explanation["features"]})
    return max(1, min(TOP, OF_A_STUDY // max(classes, 1)))


def _width() -> int:
    """Columns of a line that shows a text: all that a terminal has."""
    width = page_width()
    return WIDTH if width == sys.maxsize else width


def _majority(majority: Mapping[str, Any] | None) -> list[str]:
    if majority is None or majority["beaten"]:
        return []
    both = majority.get("macro_f1")  # earlier versions do not say
    figures = f"{both[0]:.3f} against {both[1]:.3f}, " if both else ""
    return [
        f"The model is not shown to be better than always answering '{running(majority['answer'])}' (macro F1 "
        f"{figures}{majority['difference']['value']:+.3f}), so what follows explains no working classifier.",
        "",
    ]


def _feature(
    feature: Mapping[str, Any], names: Mapping[str, Mapping[str, str]], marked: Mapping[tuple[str, str], str]
) -> list[str]:
    shares = ", ".join(
        f"{running(name)} {share:.0%}" for name, share in list(feature["document_frequency"].items())[:6]
    )
    share = f" ({feature['share']:.1%} of the decision)" if feature.get("share") is not None else ""
    lines = [
        f"  {running(feature['name'])}  -> {running(feature['toward'])}   weight {feature['weight']:.3g}{share}   "
        f"fires in: {shares}"
    ]
    if (name := names.get(feature["name"])) is not None:
        by = f", {running(name['by'])}" if name["by"] else ""
        lines.append(f"      {running(name['text'])} [{running(name['source'])}{by}]")
    lines += [f"      caution: {running(flag)}" for flag in feature.get("flags") or ()]
    if copies := feature.get("copies"):
        lines.append(
            "      near-copies: " + ", ".join(f"{running(c['name'])} ({c['correlation']:.2f})" for c in copies)
        )
    if alike := feature.get("alike"):
        lines.append(
            "      near-copies by encoder: " + ", ".join(f"{running(c['name'])} ({c['cosine']:.2f})" for c in alike)
        )
    for kind in SHOWN:
        for document in feature.get(kind) or ():
            text = marked.get((document["doc_id"], feature["name"]), document["text"])
            said = SAYS[kind] if "random" in feature else ""
            words = f"      {said:<9} " if said else "      "
            words += f"{document['value']:>9.4g}  {running(document['label'])}  {running(document['doc_id'])}"
            line = words if text is None else f"{words}  {running(text)}"
            lines.append(cut_to(line, max(_width(), LEAST)))
    return lines
