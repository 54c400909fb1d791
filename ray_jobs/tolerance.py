"""Say how many documents may fail before their run counts as failed: `corpus.max_errors`.

It decides no value, so it may change between two runs of one job. What follows from too many is in `run.outcome`.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any


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
