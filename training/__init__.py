"""Stage 2: labels, splits, probes, baselines, studies and reports over a feature store.

A store is read any number of times, no GPU, Ray or torch is ever needed here. Names are loaded on first use, so that
the command line stays quick; the way of the data is spec -> labels -> split -> features, baselines -> probes ->
metrics -> study -> explain, report.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.output.printed import format_study as format_study
    from training.spec import StudySpec as StudySpec
    from training.spec import load_study as load_study
    from training.spec import study_from_mapping as study_from_mapping
    from training.study import StudyResult as StudyResult
    from training.study import run_study as run_study

_HOME = {
    "StudyResult": "study",
    "StudySpec": "spec",
    "format_study": "output.printed",
    "load_study": "spec",
    "run_study": "study",
    "study_from_mapping": "spec",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'training' has no attribute {name!r}")
    return getattr(import_module(f"training.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
