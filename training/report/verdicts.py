"""What a study found, in words first: does anything beat the majority, do features beat baselines, what else was asked.

Words follow the rule of the study itself: a difference is said where its corrected p is below the level, and nowhere
else. That the model does not beat the commonest class comes before anything that could sound like success.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.report.elements.charts import Scale
from training.report.elements.figures import bounds, defined, p_value, percent, score, signed, whole
from training.report.study_files import StudyFiles
from training.results.factors import AGAINST_BASELINES
from training.results.selection import FAMILIES, selected_words

CHANCE = 0.5  # AUROC
SIDES = {"sae": "SAE features", "baseline": "best baseline"}


def verdict_section(study: StudyFiles) -> dict[str, Any]:
    """Sentences, the key figures, and the two sides of the headline beside the majority."""
    summary = study.summary
    methods = {m["method"]: m for m in summary["methods"]}
    majority = methods.get("majority")
    mark = majority["macro_f1"]["value"] if majority else None
    entries = [
        (side, words, reached, "sae" if klass == "sae" else "base") for klass, side, words, reached in sides(summary)
    ]
    entries += [("always the commonest class", "majority", majority["macro_f1"], "none")] if majority else []
    scale = Scale.over([entry[2] for entry in entries], mark)
    rows = [
        {
            "side": side,
            "method": method,
            "value": score(interval["value"]),
            "bounds": bounds(interval),
            "svg": scale.row(interval, klass),
            "klass": klass,
        }
        for side, method, interval, klass in entries
    ]
    files = [
        (family, model["method"], score(model["evaluation"]["macro_f1"]["value"]) if model.get("evaluation") else "")
        for family, model in study.models.items()
    ]
    return {"files": files, "lead": lead(summary), "facts": _facts(study), "rows": rows, "head": scale.head()}


def lead(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The sentences that open the page, each with whether it is good news: `good`, `bad` or `even`."""
    said: list[dict[str, str]] = []
    n, majority = summary["documents"]["used"], against(summary, "majority")
    beaten = majority is not None and beats(majority, summary)
    if majority is not None and not beaten:
        area = (summary["selected"].get("sae") or {}).get("auroc") or {}
        chance = f"; AUROC is {score(area['value'])} ({bounds(area)}), and 0.5 is chance" if bounds(area) else ""
        said.append({
            "kind": "bad",
            "text": f"The classifier is not shown to be better than always answering {_commonest(summary)}.",
            "detail": f"Macro F1 {_figures(majority)}{difference(majority)} at n = {n:,}{chance}. "
            "Nothing below explains a working model.",
        })  # fmt: skip
    headline = summary.get("headline")
    if headline is None:
        return [*said, {"kind": "even", "text": _without_headline(summary), "detail": ""}]
    comparison = headline["comparison"]
    sae, baseline = (_side_words(summary, side) for side in ("sae", "baseline"))
    if not comparison["shown"]:
        text = "No difference is shown between SAE features and the best baseline."
        kind = "even"
    else:
        better = comparison["difference"]["value"] > 0
        text = f"SAE features do {'better' if better else 'worse'} than the best baseline."
        kind = "good" if better else "bad"
    detail = f"{sae} against {baseline}: difference of macro F1 {difference(comparison)} at n = {n:,}."
    said.append({"kind": kind, "text": text, "detail": detail})
    if added := summary.get("added"):
        said.append({"kind": "even", "text": "", "detail": " ".join(added)})
    if majority is not None and beaten:
        said.append({
            "kind": "good",
            "text": "",
            "detail": f"Always answering {_commonest(summary)} is beaten: macro F1 {_figures(majority)}"
            f"{difference(majority)}.",
        })  # fmt: skip
    return said


def _without_headline(summary: Mapping[str, Any]) -> str:
    reached = {side: score(family["macro_f1"]["value"]) for side, family in summary["selected"].items()}
    if reached.keys() >= SIDES.keys():  # of an earlier version, which named no comparison
        return f"Selected by validation, SAE features reach macro F1 {reached['sae']}, baselines {reached['baseline']}."
    only = "SAE features" if "sae" in reached else "baselines"
    best = f"; the selected one reaches macro F1 {next(iter(reached.values()))}" if reached else ""
    return f"Nothing to compare: the study has only {only}{best}."


def against(summary: Mapping[str, Any], baseline: str) -> Mapping[str, Any] | None:
    """The comparison of SAE features with one baseline, if the study made it."""
    return next(
        (c for c in summary.get("comparisons", ()) if c["question"] == AGAINST_BASELINES and c["b"] == baseline), None
    )


def beats(majority: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:
    """Whether SAE features are shown to be better than the majority's answer.

    Answers drawn by lot have a higher macro F1 than the majority's, so they must rank better than chance, too.
    """
    low = ((summary["selected"].get("sae") or {}).get("auroc") or {}).get("low")
    return bool(majority["shown"]) and majority["difference"]["value"] > 0 and not (defined(low) and low <= CHANCE)


def difference(comparison: Mapping[str, Any]) -> str:
    """A difference with its interval and p, for a sentence."""
    value = comparison["difference"]
    between = bounds(value, sign=True)
    p = p_value(comparison["p_adjusted"])
    said = f"{signed(value['value'])} ({between}; corrected p {p if p.startswith('<') else f'= {p}'})"
    return said if between else signed(value["value"])


def _figures(comparison: Mapping[str, Any]) -> str:
    """What a difference is of, to stand before it; "differs by" in studies of earlier versions, which do not say."""
    a, b = (comparison.get(f"{side}_macro_f1") for side in ("a", "b"))
    return "differs by " if a is None or b is None else f"{score(a)} against {score(b)}, "


def comparison_section(study: StudyFiles) -> list[dict[str, Any]]:
    """Every comparison under its question, with its interval on the axis that all of them share."""
    comparisons: Sequence[Mapping[str, Any]] = study.summary.get("comparisons") or ()
    scale = Scale.over([c["difference"] for c in comparisons], 0.0)
    found = []
    for question in dict.fromkeys(c["question"] for c in comparisons):
        rows = [
            {
                "words": _words(c),
                "shown": c["shown"],
                "difference": signed(c["difference"]["value"]),
                "value": c["difference"]["value"],
                "bounds": bounds(c["difference"], sign=True),
                "p": p_value(c["p_adjusted"]),
                "svg": scale.row(c["difference"], _side(c) if c["shown"] else "none"),
            }
            for c in comparisons
            if c["question"] == question
        ]
        found.append({"question": question, "rows": rows, "head": scale.head()})
    return found


def _words(c: Mapping[str, Any]) -> str:
    figures = [(c[side], c.get(f"{side}_macro_f1")) for side in ("a", "b")]  # earlier versions have none
    a, b = (name if value is None else f"{name} {score(value)}" for name, value in figures)
    if not c["shown"]:
        return f"no difference shown between {a} and {b}"
    return f"{'higher' if c['difference']['value'] > 0 else 'lower'} with {a} than with {b}"


def _side(c: Mapping[str, Any]) -> str:
    return "sae" if c["difference"]["value"] > 0 else "base"


def _facts(study: StudyFiles) -> list[tuple[str, str, str]]:
    """(figure, what it is, a note) of what a reader asks first."""
    summary, documents = study.summary, study.summary["documents"]
    tests = sorted(set(summary["split"]["test_documents"]))
    held = whole(tests[0]) if len(tests) == 1 else f"{whole(tests[0])} to {whole(tests[-1])}"
    split = summary["spec"]["split"]
    drawn = f"in each of {len(summary['split']['test_documents'])} splits, {split['folds']} inner folds"
    left = sum(documents["left_out"].values())
    return [
        (whole(documents["used"]), "documents", f"{left:,} of {summary['store']['rows']:,} left out"),
        (whole(len(documents["classes"])), "classes", f"label: {label_name(summary)}"),
        (held, "held out", drawn),
        (whole(len(summary["methods"])), "methods tried", "one of them the majority's answer"),
        (whole(summary["test_set"]["looked_at"]), "looks at test sets", "each method once in each split and regime"),
        (whole(len(summary.get("comparisons") or ())), "comparisons", "corrected together (Holm, 5%)"),
    ]


def sides(summary: Mapping[str, Any]) -> list[tuple[str, str, str, Mapping[str, Any]]]:
    """What is named first: family, what it is called, which methods stand for it, and what these reach.

    The two sides of the headline, whose figures its difference is of; without a headline what validation selected.
    """
    headline = summary.get("headline")
    found = []
    for side, family in summary["selected"].items():
        if side not in SIDES:
            continue
        if headline is None:
            found.append((side, FAMILIES[side], selected_words(family["cells"]), family["macro_f1"]))
        elif (reached := _reached(summary, headline[side])) is not None:
            found.append((side, SIDES[side], selected_words(headline[side]["cells"]), reached))
    return found


def _reached(summary: Mapping[str, Any], side: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The score of one side of the headline; in studies of earlier versions that of the row that it is, if one is."""
    if "macro_f1" in side:
        return dict(side["macro_f1"])
    cells = list(side["cells"])
    if len(set(cells)) == 1:
        rows = [m for m in summary["methods"] if m["method"] == cells[0]]
    else:
        rows = [family for family in summary["selected"].values() if list(family["cells"]) == cells]
    return rows[0]["macro_f1"] if rows else None


def _side_words(summary: Mapping[str, Any], side: str) -> str:
    """One side of the headline with its figure."""
    stands = summary["headline"][side]
    reached = _reached(summary, stands)
    words = selected_words(stands["cells"])
    words = words if words == stands["method"] else f"{SIDES[side]} ({words})"
    return words if reached is None else f"{words} at {score(reached['value'])}"


def label_name(summary: Mapping[str, Any]) -> str:
    label = summary["spec"]["label"]
    return str(label if isinstance(label, str) else label["column"])


def _commonest(summary: Mapping[str, Any]) -> str:
    classes = summary["documents"]["classes"]
    name = max(classes, key=lambda c: classes[c])
    return f"'{name}' ({percent(classes[name] / max(sum(classes.values()), 1))} of the documents)"
