"""How many documents may fail before their run counts as failed: `corpus.max_errors`.

The run does all that it can first, so that nothing done is lost: parts and manifest are there, and only the exit code
and a sentence say that the store is not what was wanted. It decides no value, so it may change between two runs of one
job.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from featurestore.errors import JobFailed
from featurestore.urls import shown
from featurestore.wording import counted, share

if TYPE_CHECKING:
    from featurestore.status import ErrorKind
    from ray_jobs.driver import ExtractResult

KINDS_NAMED = 3  # of errors, in the sentence: the commonest is what has to be mended


class TooManyErrors(JobFailed):
    """The store is whole, and more of its documents have an error than the job allows.

    Attributes:
        result: What is in the store.
        kinds: Its errors by kind, the commonest first.
    """

    def __init__(self, sentence: str, result: ExtractResult, kinds: tuple[ErrorKind, ...]) -> None:
        super().__init__(sentence)
        self.result = result
        self.kinds = kinds


def errors_allowed(value: Any) -> Any:
    """Validate `corpus.max_errors`: 0.5 is half of the documents, 1 is one document."""
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if number and (0 <= value < 1 or (isinstance(value, int) and value >= 1)):
        return value
    written = str(value).lower() if isinstance(value, bool) else repr(value)
    raise ValueError(
        f"{written} is neither a share below 1 (0.01 is one document in a hundred) nor a whole number of documents "
        "(1 is one document); write one of these"
    )


def exceeds(errors: int, documents: int, allowed: float) -> bool:
    """Whether so many errors are more than a share, or a number of documents, allows."""
    return errors > (Fraction(str(allowed)) * documents if allowed < 1 else allowed)


def limit(allowed: float) -> str:
    """What is allowed, as a sentence says it."""
    return f"{float(allowed):.4g}" if 0 < allowed < 1 else f"{allowed:,.0f}"


def check_errors(result: ExtractResult, allowed: float) -> None:
    """Refuse to call a run done of which too much failed.

    Raises:
        TooManyErrors: With the commonest errors.
    """
    if not exceeds(result.errors, result.documents, allowed):
        return
    from featurestore.status import standing

    kinds = standing(result.store).error_kinds
    named = [
        f"{kind.documents:,}: {kind.kind} (as {doc_id}: {sentence})"
        for kind in kinds[:KINDS_NAMED]
        for doc_id, sentence in kind.examples[:1]
    ]
    more = [f"and {counted(len(kinds) - KINDS_NAMED, 'kind')} more"] if len(kinds) > KINDS_NAMED else []
    raise TooManyErrors(
        f"{result.errors:,} of {counted(result.documents, 'document')} ({share(result.errors, result.documents)}) have "
        f"an error, more than corpus.max_errors: {limit(allowed)} allows; {'; '.join([*named, *more])}; the store "
        f"{shown(result.store)} is whole and stays: mend what is wrong and extract into another store, or raise "
        "corpus.max_errors to accept it",
        result,
        kinds,
    )
