"""The probes by the names that STUDY.yaml knows them by.

A new probe is a class in a file of its own (`training.probes.probe` says what it must do), an entry here, and its name
in `training.spec.PROBES`.
"""

from __future__ import annotations

from training.probes.k_sparse import KSparse
from training.probes.linear_svm import LinearSvm
from training.probes.logistic_l1 import LogisticL1
from training.probes.logistic_l2 import LogisticL2
from training.probes.probe import NO_CHOICE, Probe
from training.probes.softmax import Softmax
from training.probes.tree import Tree

PROBES: dict[str, Probe] = {
    probe.name: probe for probe in (LogisticL2(), LogisticL1(), Tree(), KSparse(), LinearSvm(), Softmax())
}


def grid_of(name: str | None) -> tuple[float, ...]:
    """Values of a probe's hyper-parameter; a method without probe (majority) has nothing to choose."""
    return NO_CHOICE if name is None else PROBES[name].grid


def revision_of(name: str | None) -> int:
    """How often the outcome of a probe has changed; 0 for a method without probe."""
    return 0 if name is None else PROBES[name].revision


def parameter_of(name: str | None) -> str | None:
    """Name of a probe's hyper-parameter; None for a probe without one and a method without probe."""
    return None if name is None else PROBES[name].parameter
