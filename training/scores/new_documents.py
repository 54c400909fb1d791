"""How good a model is on new labelled documents, and whether these are like those that it was trained on.

Scores are those of a study with the same bootstrap, over the documents that have features and a label of the model's.
`training.scores.drift` says where new text is other text. What is kept of a document is a row of numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.base.hostile_text import visible
from featurestore.base.number_words import counted
from featurestore.errors import UsageError
from featurestore.models.calibration import are_probabilities
from featurestore.models.thresholds import BY_PEOPLE, CLAIMED, REJECTED, UNDECIDED
from featurestore.tables.same_value import cut, label_text
from training.scores.bootstrap import LEVEL, TOO_FEW, Interval, bootstrap, interval
from training.scores.drift import Drift, DriftMeter, Shifts, drift_lines
from training.scores.metrics import METRICS, Prediction, accuracy, auroc, calibration, class_f1, macro_f1
from training.scores.operating_points import Aim, measure
from training.scores.operating_words import measured_plain, share_text

if TYPE_CHECKING:
    from featurestore.models.model import Model
    from featurestore.models.predict import Predicted

RESAMPLES = 1_000  # as many as a study draws by default
SHOWN = 10  # labels that are no class
KEPT = 1_000  # different ones that are counted one by one: a column of texts has one for each document
CHARACTERS = 200  # of a label that is kept


@dataclass(frozen=True)
class Evaluation:
    """A model's scores on new documents.

    Attributes:
        documents: With a label of the model's and features: those that are scored.
        unlabelled: Documents without a label.
        unknown: Label that is no class -> documents; the commonest, of the first KEPT that came.
        unknown_documents: Documents with a label that is no class, whichever.
        without_features: Labelled documents that failed or are empty.
        macro_f1, accuracy, auroc: With 95 % bootstrap intervals, undefined for fewer than TOO_FEW documents; of the
            likeliest class.
        class_f1: Class -> F1.
        brier, ece: Brier score and expected calibration error; None where scores are no probabilities.
        decided: Scored documents that are not undecided, and the share decided rightly (NaN without any).
        operating_point: What is decided of its class: `class`, and what `training.scores.operating_words` makes of the
            shares; None where the model has none.
        drift: The features that moved most; None where the documents' features are not there, or the model does not
            know how often they fired in training.
        drifted, tested: How many features moved, of how many that are used.
        drift_shows: The smallest shift of a share that so many documents show, median over features; None where half of
            them could show none, or drift is not known.
        drift_documents: Those with features, labelled or not, that drift was measured on.
    """

    documents: int
    unlabelled: int
    unknown: dict[str, int]
    unknown_documents: int
    without_features: int
    macro_f1: Interval
    accuracy: Interval
    auroc: Interval
    class_f1: dict[str, float]
    brier: float | None
    ece: float | None
    decided: tuple[int, float]
    operating_point: dict[str, Any] | None
    drift: tuple[Drift, ...] | None
    drifted: int
    tested: int
    drift_shows: float | None
    drift_documents: int

    @property
    def shifts(self) -> Shifts | None:
        """Drift as its own record; None where it is not known."""
        if self.drift is None:
            return None
        return Shifts(self.drift_documents, self.tested, self.drifted, self.drift_shows, self.drift)


@dataclass
class Evaluator:
    """Gathers what an evaluation needs, batch after batch.

    Args:
        model: The model.
        column: Where labels come from, for messages.
    """

    model: Model
    column: str
    _truth: list[int] = field(default_factory=list)
    _class: list[int] = field(default_factory=list)
    _decided: list[int] = field(default_factory=list)
    _proba: list[np.ndarray] = field(default_factory=list)
    _unknown: Counter[str] = field(default_factory=Counter)
    _unknown_documents: int = 0
    _unlabelled: int = 0
    _nothing: int = 0

    def __post_init__(self) -> None:
        self.meter = DriftMeter(self.model)

    def add(
        self,
        batch: Predicted,
        labels: Sequence[Any],
        decisions: Sequence[str],
        problems: Sequence[str | None],
    ) -> None:
        """Some more documents.

        Args:
            batch: What was predicted of them.
            labels: The values of the label column.
            decisions: What was decided.
            problems: What is wrong with each as far as the rule cares. They tell what people decide from a class called
                `undecided`.
        """
        place = {name: c for c, name in enumerate(self.model.classes)}
        with np.errstate(divide="ignore"):
            log_proba = np.log(batch.proba)
        for i, raw in enumerate(labels):
            text = self._text(raw)
            if text is None:
                self._unlabelled += 1
            elif text not in place:
                self._count_unknown(text[:CHARACTERS])
            elif batch.y_pred[i] < 0:
                self._nothing += 1
            else:
                self._truth.append(place[text])
                self._class.append(int(batch.y_pred[i]))
                by_people = decisions[i] == BY_PEOPLE and problems[i] is not None
                self._decided.append(-1 if by_people else place.get(decisions[i], -1))
                self._proba.append(log_proba[i])
        self.meter.add(batch)

    def _count_unknown(self, text: str) -> None:
        self._unknown_documents += 1
        if text in self._unknown or len(self._unknown) < KEPT:
            self._unknown[text] += 1

    def _text(self, raw: Any) -> str | None:
        try:
            return label_text(raw, self.model.classes)
        except TypeError as error:
            raise UsageError(f"--evaluate {self.column}: its values are {error}, which are no classes") from None

    def result(self) -> Evaluation:
        """The scores.

        Raises:
            UsageError: No document has both a label of the model's and features.
        """
        if not self._truth:
            there = ", ".join(f"'{cut(name)}'" for name, _ in self._unknown.most_common(SHOWN)) or "none"
            raise UsageError(
                f"--evaluate {self.column}: no document has a label that is a class of the model "
                f"({', '.join(map(cut, self.model.classes))}) and features; its labels: {there}"
            )
        y_true, y_pred, log_proba = np.array(self._truth), np.array(self._class), np.array(self._proba)
        n, n_classes = len(y_true), len(self.model.classes)
        prediction = Prediction(np.arange(n), y_true, y_pred, log_proba)
        replicates = bootstrap([[prediction]], n_classes, n, None, RESAMPLES)[0]
        replicates = replicates if n >= TOO_FEW else np.full_like(replicates, np.nan)
        values = (macro_f1(y_true, y_pred, n_classes), accuracy(y_true, y_pred), auroc(y_true, log_proba)[0])
        scores = {name: interval(v, r) for name, v, r in zip(METRICS, values, replicates, strict=True)}
        probabilities = are_probabilities(self.model)
        brier, ece = calibration(y_true, y_pred, log_proba) if probabilities else (None, None)
        decision = np.array(self._decided)
        decided = decision >= 0
        right = float(np.mean((y_true == decision)[decided])) if decided.any() else float("nan")
        shifts = self.meter.result()
        return Evaluation(
            documents=n,
            unlabelled=self._unlabelled,
            unknown=dict(self._unknown.most_common(SHOWN)),
            unknown_documents=self._unknown_documents,
            without_features=self._nothing,
            class_f1=dict(zip(self.model.classes, class_f1(y_true, y_pred, n_classes), strict=True)),
            brier=brier,
            ece=ece,
            decided=(int(decided.sum()), right),
            operating_point=self._operating_point(y_true, decision),
            drift=None if shifts is None else shifts.features,
            drifted=0 if shifts is None else shifts.moved,
            tested=0 if shifts is None else shifts.tested,
            drift_shows=None if shifts is None else shifts.shows,
            drift_documents=0 if shifts is None else shifts.documents,
            **scores,
        )

    def _operating_point(self, y_true: np.ndarray, decision: np.ndarray) -> dict[str, Any] | None:
        """What the decisions come to for the class that the model has thresholds for; documents are independent."""
        point = self.model.header.get("operating_point")
        if point is None:
            return None
        c = self.model.classes.index(point["class"])
        side = np.where(decision == c, CLAIMED, np.where(decision < 0, UNDECIDED, REJECTED))
        asked = point.get("aim")
        cost = asked.get("cost") if isinstance(asked, Mapping) else None
        named = cost if isinstance(cost, Mapping) else {}
        both = [one for key in ("false_positive", "false_negative") if isinstance(one := named.get(key), float)]
        aim = Aim("cost", float("nan"), *both) if len(both) == 2 else Aim("")
        return {"class": point["class"], **measured_plain(measure(side, y_true == c, np.arange(len(side)), aim))}


def format_evaluation(evaluation: Evaluation, column: str) -> str:
    """An evaluation as a page for people."""
    n, point = evaluation.documents, evaluation.operating_point
    what = "Scores" if point is None else "Scores of the likeliest class"
    how = f"{LEVEL:.0%} bootstrap intervals" if n >= TOO_FEW else f"fewer than {TOO_FEW}: no bootstrap intervals"
    lines = [f"{what} against '{visible(column)}' on {counted(n, 'document')} ({how})"]
    for name, title in zip(METRICS, ("macro F1", "accuracy", "AUROC"), strict=True):
        found: Interval = getattr(evaluation, name)
        bounds = "" if np.isnan(found.low) else f" ({found.low:.3f} to {found.high:.3f})"
        shown = "undefined" if np.isnan(found.value) else f"{found.value:.3f}{bounds}"
        lines.append(f"  {title:<10} {shown}")
    lines.append(
        "  F1         " + ", ".join(f"{visible(name)} {value:.3f}" for name, value in evaluation.class_f1.items())
    )
    if evaluation.brier is not None:
        lines.append(f"  calibration: Brier score {evaluation.brier:.3f}, expected error {evaluation.ece:.3f}")
    decided, right = evaluation.decided
    if decided < n and point is None:
        lines.append(f"  decided: {decided:,} of them{f', {right:.3f} right' if decided else ''}")
    if left := evaluation.unlabelled + evaluation.unknown_documents + evaluation.without_features:
        unknown = f", labels that are no class: {', '.join(map(cut, evaluation.unknown))}" if evaluation.unknown else ""
        unknown += ", ..." if evaluation.unknown_documents > sum(evaluation.unknown.values()) else ""
        lines.append(
            f"  left out: {left:,} ({evaluation.unlabelled:,} without label, {evaluation.without_features:,} without "
            f"features{unknown})"
        )
    lines += [] if point is None else _point_lines(evaluation, point)
    lines += [f"  {line}" for line in drift_lines(evaluation.shifts)]
    return "\n".join(lines)


def _point_lines(evaluation: Evaluation, point: Mapping[str, Any]) -> list[str]:
    """What the operating point decided of its class, with counts and Wilson's intervals."""
    name, n = visible(point["class"]), evaluation.documents
    precision, recall, caught, undecided = (point[key] for key in ("precision", "recall", "caught", "undecided"))
    flagged = f"{precision['documents']:,}: its precision is not known"
    if precision["documents"]:
        flagged = f"{precision['documents']:,}, of which {precision['hits']:,} right: precision {share_text(precision)}"
    of = f"of {recall['documents']:,} {name} {'document' if recall['documents'] == 1 else 'documents'}"
    found = f"{of} {recall['hits']:,} found: recall {share_text(recall)}"
    handed = f"{undecided['hits']:,}"
    if undecided["hits"] and recall["documents"]:
        handed += f"; if people are right on these, recall {share_text(caught)}"
    return [
        f"Decisions by the operating point of '{name}' on the same {counted(n, 'document')} (Wilson's intervals)",
        f"  flagged as {name}: {flagged}",
        f"  {found}",
        f"  undecided: {handed}",
    ]
