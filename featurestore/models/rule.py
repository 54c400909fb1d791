"""What is decided about a document: a class, or what a stated rule says where something is wrong with it.

The model's operating point decides where it has one (`featurestore.models.thresholds`), the likeliest class elsewhere.
A document that failed, that is empty, or of which only the beginning was read gets no class by accident: by default it
is `undecided`, and a person looks at it. The class and the probabilities that came out are kept beside the decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.base.did_you_mean import did_you_mean
from featurestore.errors import JobFailed, UsageError
from featurestore.models.predict import Predicted
from featurestore.models.thresholds import BY_PEOPLE

UNDECIDED, FAIL = BY_PEOPLE, "fail"


@dataclass(frozen=True)
class Rule:
    """What becomes of documents with which something is wrong.

    Attributes:
        on_error: `undecided`, `fail` (the first such document ends the command), or the name of a class.
        accept_truncated: Whether a document of which only the beginning was read is decided like any other.
    """

    on_error: str = UNDECIDED
    accept_truncated: bool = False

    def check(self, classes: Sequence[str]) -> None:
        """Refuse a rule that names no class, or that could mean two things.

        Raises:
            UsageError: Naming the classes.
        """
        if self.on_error == FAIL and FAIL in classes:
            raise UsageError(
                f"--on-error: '{FAIL}' is a class of this model, and would end the command too; leave it out, and "
                f"documents with which something is wrong are {UNDECIDED}, or name another class"
            )
        if self.on_error not in (UNDECIDED, FAIL, *classes):
            raise UsageError(
                f"--on-error: '{self.on_error}' is no class of this model; give {UNDECIDED}, {FAIL} or one of "
                f"{', '.join(classes)}{did_you_mean(self.on_error, classes)}"
            )

    def problems(self, batch: Predicted) -> list[str | None]:
        """What is wrong with each document as far as this rule cares."""
        if self.accept_truncated:
            return [
                None if cut and y >= 0 else problem
                for problem, cut, y in zip(batch.problem, batch.truncated, batch.y_pred, strict=True)
            ]
        return list(batch.problem)

    def decide(self, classes: Sequence[str], batch: Predicted) -> list[str]:
        """A class, or `undecided`, for each document.

        Raises:
            JobFailed: Something is wrong with a document and the rule is `fail`.
        """
        decided = []
        for doc_id, label, problem in zip(batch.doc_id, batch.decided, self.problems(batch), strict=True):
            if problem is None:
                decided.append(classes[label] if label >= 0 else UNDECIDED)
            elif self.on_error == FAIL:
                raise JobFailed(f"document {doc_id}: {problem}; mend or remove it, or leave out --on-error fail")
            else:
                decided.append(self.on_error)
        return decided
