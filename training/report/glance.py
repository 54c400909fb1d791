"""A finished study at a glance, as a notebook or a prompt shows it: its verdict in words, its intervals as a plot."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup, escape

from featurestore.base.number_words import counted
from training.report.elements.dots import Dot, dot_plot
from training.report.elements.figures import score
from training.report.elements.plain import visible
from training.report.methods_tried import KINDS
from training.report.study_files import StudyFiles
from training.report.verdicts import label_name, lead, sides
from training.results.selection import FAMILIES

MOST = 20  # methods in the picture; the frame has all


def sentences(study: StudyFiles) -> list[str]:
    """What the study says first, in words."""
    return [" ".join(filter(None, (said["text"], said["detail"]))) for said in lead(study.summary)]


def one_line(study: StudyFiles, place: str) -> str:
    """The study in a line."""
    summary = study.summary
    found = [f"{side} {score(reached['value'])} ({words})" for _, side, words, reached in sides(summary)]
    n = counted(summary["documents"]["used"], "document")
    said = [f"{label_name(summary)!r} of {n}", counted(len(summary["methods"]), "method")]
    said += [f"macro F1 of {', '.join(found)}"] if found else []
    return f"Study({place!r}: {'; '.join(said)})"


def page(study: StudyFiles, place: str) -> str:
    """The same as HTML: the verdict, a plot of all methods with their intervals, and where the whole report lies."""
    methods: list[dict[str, Any]] = list(study.summary["methods"])
    majority = next((m["macro_f1"]["value"] for m in methods if m["kind"] == "majority"), None)
    dots = [Dot(FAMILIES[side], m["macro_f1"], _klass(side)) for side, m in _selected(study) if side in FAMILIES]
    best = sorted(methods, key=lambda m: -(m["validation_macro_f1"] or 0.0))
    dots += [Dot(m["method"], m["macro_f1"], KINDS.get(m["kind"], "base")) for m in best[:MOST]]
    more = f"; {len(methods) - MOST:,} more in methods()" if len(methods) > MOST else ""
    level = study.summary["intervals"]["level"]
    says = f"Macro F1 of {len(dots)} methods, each with its interval of {level:.0%}"
    title = f"Study of {counted(study.summary['documents']['used'], 'document')} by {label_name(study.summary)}"
    under = (
        f"Macro F1 on test documents, intervals of {level:.0%}, best validated first{more}. Report: {place}/report.html"
    )
    verdict = Markup("").join(Markup("<p>{}</p>").format(visible(sentence)) for sentence in sentences(study))
    plot = dot_plot(dots, says, majority)
    return str(
        Markup("<div><b>{}</b>{}{}<p><small>{}</small></p></div>").format(visible(title), verdict, plot, escape(under))
    )


def _selected(study: StudyFiles) -> list[tuple[str, dict[str, Any]]]:
    return list(study.summary["selected"].items())


def _klass(side: str) -> str:
    return "sae" if side == "sae" else "base"
