"""Define the exceptions of the whole project, each with the exit code of a command that ends with it.

Every message is one sentence that says what is wrong, where, and what to do; it repeats no secret of a URL, whoever put
it together. Nothing heavy is imported, so raising these errors costs nobody Arrow or polars.
"""

from __future__ import annotations

from featurestore.url_secrets import without_secrets


class SparsemillError(Exception):
    """Something failed and the message says what; the command ends with exit code 1."""

    exit_code = 1

    def __init__(self, *args: object) -> None:
        # Sentences quote what other libraries say, and those repeat a URL as it was given.
        super().__init__(*(without_secrets(arg) if isinstance(arg, str) else arg for arg in args))


class JobFailed(SparsemillError):  # noqa: N818  (an outcome, named as such)
    """A job stopped while running; the parts it committed stay and a rerun goes on from them."""


class JobStopped(JobFailed):
    """Somebody asked a run to stop; the command ends with the exit code of a process that SIGTERM ended."""

    exit_code = 143


class UsageError(SparsemillError):
    """The input is at fault (a file, a setting, an argument); the command ends with exit code 2."""

    exit_code = 2


class StoreError(UsageError):
    """A path is no feature store, a store is incomplete or damaged, or a column asked for is not in it."""


class MismatchError(StoreError):
    """A store was written by another job: its fingerprint differs from the one that wants to write to it."""


class JobSpecError(UsageError):
    """JOB.yaml cannot be read or does not describe a job."""


class CorpusError(UsageError):
    """The corpus cannot be read as the job describes it."""


class TableError(UsageError):
    """A table that is to be joined (labels, texts) cannot be read, or its columns are not what they are taken for."""


class NamesError(UsageError):
    """Names of features cannot be read or kept, or they are another SAE's."""


class BundleError(UsageError):
    """A model or SAE cannot be prepared or opened, or the two do not belong together."""


class StudyError(UsageError):
    """STUDY.yaml cannot be read, or the store it names cannot answer it."""
