"""Sparse-autoencoder features of text corpora, and classifiers over them.

`import sparsemill as sm`, then `sm.extract(job)`, `sm.study(study)`, `sm.open(place)`: what the commands do, with
frames and pages for notebooks in place of text. Names are loaded on first use, so the import itself takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparsemill.version import __version__ as __version__

if TYPE_CHECKING:
    from featurestore.aligned import align as align
    from featurestore.errors import SparsemillError as SparsemillError
    from featurestore.errors import UsageError as UsageError
    from featurestore.reader import FeatureStore as FeatureStore
    from ray_jobs.spec import JobSpec as JobSpec
    from sparsemill.commands import COMMANDS as COMMANDS
    from sparsemill.commands import command_parser as command_parser
    from sparsemill.commands import main as main
    from sparsemill.jobs import Evidence as Evidence
    from sparsemill.jobs import Plan as Plan
    from sparsemill.jobs import extract as extract
    from sparsemill.jobs import label as label
    from sparsemill.jobs import plan as plan
    from sparsemill.jobs import prepare as prepare
    from sparsemill.jobs import tokens as tokens
    from sparsemill.stores import names as names
    from sparsemill.stores import open as open
    from sparsemill.studies import Study as Study
    from sparsemill.studies import open_study as open_study
    from sparsemill.studies import predict as predict
    from sparsemill.studies import report as report
    from sparsemill.studies import study as study
    from training.spec import StudySpec as StudySpec

_HOME = {
    "Evidence": "sparsemill.jobs",
    "FeatureStore": "featurestore.reader",
    "JobSpec": "ray_jobs.spec",
    "Plan": "sparsemill.jobs",
    "SparsemillError": "featurestore.errors",
    "Study": "sparsemill.studies",
    "StudySpec": "training.spec",
    "UsageError": "featurestore.errors",
    "align": "featurestore.aligned",
    "extract": "sparsemill.jobs",
    "label": "sparsemill.jobs",
    "names": "sparsemill.stores",
    "open": "sparsemill.stores",
    "open_study": "sparsemill.studies",
    "plan": "sparsemill.jobs",
    "predict": "sparsemill.studies",
    "prepare": "sparsemill.jobs",
    "report": "sparsemill.studies",
    "study": "sparsemill.studies",
    "tokens": "sparsemill.jobs",
}
__all__ = sorted(_HOME)
_COMMAND_LINE = ("COMMANDS", "command_parser", "main")


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives (PEP 562)."""
    home = "sparsemill.commands" if name in _COMMAND_LINE else _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'sparsemill' has no attribute {name!r}")
    from sparsemill.installation import check_packages

    check_packages()
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
