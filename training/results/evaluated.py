"""What every method answered on some splits of a study: the one object that rows and means are made from.

It pairs each method's outcomes with the documents and splits that they are of, and can be narrowed to some splits: the
study itself, or one regime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from training.documents.labels import StudyData
from training.documents.split import Split
from training.evaluation import MethodOutcome
from training.methods.store_names import store_names
from training.scores.metrics import Prediction


@dataclass(frozen=True)
class Evaluated:
    """Outcomes of methods on splits.

    Attributes:
        outcomes: One for each method, each with an entry for each split.
        data: The documents.
        splits: The splits.
    """

    outcomes: tuple[MethodOutcome, ...]
    data: StudyData
    splits: tuple[Split, ...]

    @cached_property
    def stores(self) -> dict[str, str]:
        """URI of each store beside the study's own that methods read -> what it is called."""
        return store_names([o.method.store for o in self.outcomes if o.method.store is not None])

    def on(self, where: Sequence[int]) -> Evaluated:
        """The same for some of the splits."""
        outcomes = tuple(
            MethodOutcome(o.method, o.n_features, tuple(o.splits[s] for s in where)) for o in self.outcomes
        )
        return Evaluated(outcomes, self.data, tuple(self.splits[s] for s in where))

    def prediction(self, m: int, s: int, rows: np.ndarray | None = None) -> Prediction:
        """Answers of method m for the test rows of split s, or for some of them (int64, rising)."""
        test, answers = self.splits[s].test, self.outcomes[m].splits[s]
        if rows is None or len(rows) == len(test):
            return Prediction(test, self.data.y[test], answers.y_pred, answers.log_proba)
        place = np.searchsorted(test, rows)
        return Prediction(rows, self.data.y[rows], answers.y_pred[place], answers.log_proba[place])

    def validation(self, m: int, s: int) -> float:
        """The only score that selects: mean macro F1 over the inner folds of split s."""
        return self.outcomes[m].splits[s].validation_macro_f1
