"""Tell of which kind an exception of a living worker is, as a `Failure` with its `Kind` and one sentence.

There are as few kinds as there are different consequences: the job is wrong, a worker or its node is gone, memory or
storage is short, something stands in the part's place, or computing the unit failed. The consequences themselves are
decided by `failure_policy`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from featurestore.base.library_errors import named
from featurestore.errors import (
    BundleError,
    CorpusError,
    JobFailed,
    JobSpecError,
    MismatchError,
    SparsemillError,
    UsageError,
)
from featurestore.url_secrets import without_secrets

# Storage that refuses for such a reason refuses every other unit too, until the user has changed something.
_FULL = {errno.ENOSPC: "it is full", errno.EDQUOT: "the quota is used up"}
_CLOSED = {errno.EROFS: "it is read-only", errno.EACCES: "no permission", errno.EPERM: "no permission"}
# What object stores call the same, in the text of an error without a number.
_CLOSED_WORDS = ("ACCESS_DENIED", "AccessDenied", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH")
# What stands in the way of one path only: no other worker and no waiting changes it.
_OBSTACLES = (IsADirectoryError, NotADirectoryError, FileExistsError)


class Kind(Enum):
    """What a failure means."""

    JOB = "job"
    """No unit of this job can work."""
    LOST = "lost"
    """The worker's process is gone."""
    NODE = "node"
    """The worker's node is gone, was taken away or cannot be reached: nothing that the worker did is to blame."""
    MEMORY = "memory"
    """The host's memory ran out."""
    STORAGE = "storage"
    """Storage did not answer, or failed in a way that may pass."""
    PLACE = "place"
    """Something stands where the unit's part should be."""
    UNIT = "unit"
    """Computing the unit failed: perhaps one of its documents is at fault."""

    @property
    def event(self) -> str:
        """The name under which a run counts it: for whoever looks on, a worker that went with its node is lost too."""
        return Kind.LOST.value if self is Kind.NODE else str(self.value)


@dataclass(frozen=True)
class Failure:
    """One failure.

    Attributes:
        kind: What it means.
        reason: One sentence without a full stop.
        error: What to raise if the run stops for it.
    """

    kind: Kind
    reason: str
    error: SparsemillError | None = None


def classify(error: BaseException, store: str) -> Failure:
    """Tell what an exception that our own code raised on a worker means.

    Args:
        error: The exception.
        store: The store as it may be shown.
    """
    reason = named(error)
    if isinstance(error, CorpusError | MismatchError | JobSpecError | BundleError | JobFailed):
        return Failure(Kind.JOB, reason, error)
    if isinstance(error, OSError):
        if refusal := storage_refusal(error, store):
            return Failure(Kind.JOB, refusal, JobFailed(refusal))
        return Failure(Kind.PLACE if isinstance(error, _OBSTACLES) else Kind.STORAGE, reason)
    if isinstance(error, MemoryError) or type(error).__name__ == "ArrowMemoryError":
        return Failure(Kind.MEMORY, reason)
    if type(error).__name__ == "AcceleratorError":  # its GPU context is gone for good; torch is not imported here
        return Failure(Kind.LOST, reason)
    return Failure(Kind.UNIT, reason, error if isinstance(error, SparsemillError) else None)


def storage_refusal(error: OSError, store: str) -> str | None:
    """The sentence that ends a run whose storage takes nothing more; None if trying again may help."""
    where = without_secrets(error.filename) if isinstance(error.filename, str) else store
    if error.errno in _FULL:
        return f"{where} cannot be written: {_FULL[error.errno]}; make room, and the same command goes on"
    closed = _CLOSED.get(error.errno or 0) or next((word for word in _CLOSED_WORDS if word in str(error)), None)
    if closed:
        return f"{where} cannot be read or written: {closed}; see to the access to it, and the same command goes on"
    return None


@contextmanager
def transient_storage_errors() -> Iterator[None]:
    """Let an error of storage that may pass look like one, and not like a fault of the input.

    Readers turn whatever goes wrong with a file into a sentence about the user's input. In the middle of a run a
    connection that broke is more likely than a corpus that did: it becomes OSError again, and is tried again.
    """
    try:
        yield
    except UsageError as error:
        below = error.__cause__ or error.__context__
        if _may_pass(below):
            raise OSError(getattr(below, "errno", None) or errno.EIO, str(error)) from error
        raise


def _may_pass(below: BaseException | None) -> bool:
    if not isinstance(below, OSError) or isinstance(below, (FileNotFoundError, PermissionError, *_OBSTACLES)):
        return False
    return type(below).__name__ != "BadGzipFile" and storage_refusal(below, "") is None
