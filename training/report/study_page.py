"""Put the HTML page of a study together: each section from the files of the study, then one template."""

from __future__ import annotations

from typing import Any

from featurestore.errors import StudyError
from featurestore.storage.files import atomic_write, filesystem, shown
from training.report.behaviour import behaviour_section
from training.report.elements.render import render
from training.report.feature_cards import errors_section, features_section
from training.report.methods_tried import methods_section
from training.report.naming import feature_names
from training.report.records_kept import costs_section, documents_section, provenance_section
from training.report.regimes import regimes_section, transfer_section
from training.report.study_files import StudyFiles, read_study
from training.report.verdicts import comparison_section, label_name, verdict_section

REPORT = "report.html"
SECTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (  # id, name, and what the page must hold for it to be there
    ("verdict", "Verdict", ()),
    ("tried", "What was tried", ()),
    ("comparisons", "What was compared", ("comparisons",)),
    ("documents", "Who took part", ()),
    ("harder", "Harder conditions", ("regimes", "transfer")),
    ("features", "Features that decide", ("features",)),
    ("behaviour", "How it decides", ("behaviour",)),
    ("errors", "Its worst errors", ("errors",)),
    ("costs", "What it cost", ()),
    ("provenance", "Provenance", ()),
)


def study_report(uri: str, private: bool = False) -> bytes:
    """The report of a finished study, one HTML file.

    Args:
        uri: Its directory or URL.
        private: Whether texts, ids and file names stay out, whatever the study says.

    Raises:
        StudyError: There is no finished study, or its files do not hold what a study writes.
    """
    study = read_study(uri, private)
    try:
        return render("study.html", study_page(study))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as exc:
        raise StudyError(
            f"{shown(uri)}: its files do not hold what a study of this version writes ({type(exc).__name__}: {exc}); "
            "run the study again"
        ) from exc


def write_study_report(uri: str, private: bool = False) -> str:
    """Write the report into the study's own directory; its path."""
    page = study_report(uri, private)
    fs, root = filesystem(uri)
    atomic_write(fs, f"{root}/{REPORT}", page)
    return f"{uri.rstrip('/')}/{REPORT}"


def study_page(study: StudyFiles) -> dict[str, Any]:
    """Everything that the template shows, as plain data and SVG."""
    names = feature_names(study)
    *_, folder, store = ["", *study.store.rstrip("/").split("/")]
    store = f"{folder}/{store}" if folder and store == "store" else store  # a name that says nothing
    store = "a private corpus" if study.private else store
    label = label_name(study.summary)
    page = {
        "title": f"Study of {store}, by {label}",
        "store": store,
        "label": label,
        "private": study.private,
        "verdict": verdict_section(study),
        "comparisons": comparison_section(study),
        "methods": methods_section(study),
        "regimes": regimes_section(study),
        "transfer": transfer_section(study),
        "behaviour": behaviour_section(study),
        "features": features_section(study, names),
        "errors": errors_section(study, names),
        "documents": documents_section(study),
        "costs": costs_section(study.store, study.summary["store"]["fingerprint"]),
        "provenance": provenance_section(study),
    }
    return page | {"sections": [(id, name) for id, name, part in SECTIONS if not part or any(page[p] for p in part)]}
