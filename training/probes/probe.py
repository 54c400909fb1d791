"""What a probe is: a classifier with a grid of values to choose from on folds; fitted, it is plain numbers.

Each of the six is a class in a file of its own; `training.probes.catalogue` finds them by name. A probe holds no data:
`search` and `fit` get `Folds` and hand back predictions and a `FittedProbe`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from featurestore.models.scoring import scores
from training.probes.folds import Folds, one_fold

# From "the classes' shares and little else" to "as good as unregularised" for features scaled to about [0, 1]; a
# factor of ten a step is finer than what validation on a few hundred documents can tell apart.
C_GRID = tuple(float(c) for c in 10.0 ** np.linspace(-4, 3, 8))
NO_CHOICE = (0.0,)  # the grid of a classifier without hyper-parameter; the value means nothing


@dataclass(frozen=True)
class FittedProbe:
    """What a probe has learnt, as plain numbers; K columns, scaled as they were in the fit.

    Attributes:
        link: How decisions become log-probabilities, one of `featurestore.models.checks.LINKS`.
        tensors: coef float64 [classes or 1, K] and intercept [classes or 1]; or of a tree left, right, feature (int64)
            and threshold [nodes], value [nodes, classes].
        importance: float64 [K], how much it goes by each column: largest |coefficient|, or a tree's share of the gain.
        iterations: Of its solver (tree: its depth).
        converged: Whether the solver met its tolerance.
    """

    link: str
    tensors: Mapping[str, np.ndarray]
    importance: np.ndarray
    iterations: int
    converged: bool

    def log_proba(self, X: Any) -> np.ndarray:
        """Log-probabilities [n, classes] of scaled rows; a linear SVM's are the log-softmax of its margins."""
        return scores(self.link, self.tensors, X)

    def predict(self, X: Any) -> np.ndarray:
        """Class index int64 [n] of scaled rows."""
        return np.argmax(self.log_proba(X), axis=1)

    def coefficients(self) -> np.ndarray | None:
        """Coefficients [classes or 1, K] of a linear probe, of two classes one row for the second; None for a tree."""
        return self.tensors.get("coef")


def linear(coef: np.ndarray, intercept: np.ndarray, link: str, iterations: int, converged: bool) -> FittedProbe:
    """A fitted linear probe from coefficients [classes or 1, K] and intercepts [classes or 1]."""
    tensors = {"coef": np.asarray(coef), "intercept": np.asarray(intercept)}
    return FittedProbe(link, tensors, np.abs(coef).max(axis=0), iterations, converged)


class Probe(ABC):
    """A kind of classifier.

    Attributes:
        name: As STUDY.yaml has it.
        parameter: Name of its hyper-parameter, None without one.
        grid: Values of it, rising, from the simplest model to the most flexible.
        has_probabilities: Whether its scores are probabilities, so that their calibration means something.
        stops_on_purpose: Whether it is to stop before its solver has converged.
        together: Whether the folds of a search are solved together, in one walk over the matrix.
        reads_columns: Whether it reads a sparse matrix by columns.
        revision: Grows when the same fit would come out otherwise by more than its tolerance; what was kept is then
            computed again.
        in_place: Whether `fit` reads a matrix as it is, so that nobody needs to scale a copy.
    """

    name: ClassVar[str]
    parameter: ClassVar[str | None] = None
    grid: ClassVar[tuple[float, ...]] = NO_CHOICE
    has_probabilities: ClassVar[bool] = True
    stops_on_purpose: ClassVar[bool] = False
    together: ClassVar[bool] = False
    reads_columns: ClassVar[bool] = False
    in_place: ClassVar[bool] = False
    revision: ClassVar[int] = 0

    @abstractmethod
    def estimator(self, value: float) -> Any:
        """The unfitted scikit-learn classifier that `fit` fits, for anyone who wants to repeat a final model."""

    @abstractmethod
    def fit(self, folds: Folds, value: float, n_jobs: int = 1) -> FittedProbe:
        """Fit the first fold, whose columns are not shifted.

        Args:
            folds: The rows.
            value: Of the hyper-parameter.
            n_jobs: Threads; they change no bit.
        """

    def search(self, folds: Folds, grid: Sequence[float], n_jobs: int = 1) -> list[np.ndarray]:  # noqa: ARG002
        """Predict the validation rows of each fold with a fit at each value.

        Args:
            folds: The folds.
            grid: Values of the hyper-parameter, rising.
            n_jobs: Threads; they change no bit.

        Returns:
            int64 [len(grid), rows] for each fold, class indices. They only rank the values: a probe may take a
            shorter way to them than `fit`.
        """
        answers = []
        for p, (fit, validate) in enumerate(zip(folds.fit, folds.validate, strict=True)):
            here = one_fold(folds.scaled(p, fit), folds.of.y[fit], folds.n_classes, folds.weights_of(p, fit))
            held_out = folds.scaled(p, validate)
            answers.append(np.stack([self.fit(here, value).predict(held_out) for value in grid]))
        return answers


def fit_quietly(model: Any, folds: Folds) -> bool:
    """Fit a scikit-learn classifier on the first fold and say whether its solver converged.

    The caller reports that, so the solver's warning is not printed.
    """
    from sklearn.exceptions import ConvergenceWarning

    rows = folds.fit[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(folds.scaled(0, rows), folds.of.y[rows], sample_weight=folds.weights_of(0, rows))
    return bool(np.max(getattr(model, "n_iter_", 0)) < getattr(model, "max_iter", np.inf))
