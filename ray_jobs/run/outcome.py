"""Hand back what a run came to; a whole store of which more documents failed than the job allows is a failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.base.number_words import counted, share
from featurestore.errors import JobFailed
from featurestore.url_secrets import shown
from ray_jobs.tolerance import exceeds, limit

if TYPE_CHECKING:
    from featurestore.status import ErrorKind

KINDS_NAMED = 3  # of errors, in the sentence: the commonest is what has to be mended


@dataclass(frozen=True)
class ExtractResult:
    """A complete store, and what this run did for it.

    Attributes:
        store: Where it is.
        documents: Rows.
        errors: Rows with an error.
        tokens: Tokens pooled.
        bytes: Size of all parts.
        units: Parts.
        units_run: Units that this run did.
        documents_run: Documents in them.
        tokens_run: Tokens in them.
        seconds: Wall time from the plan to the manifest.
        work_seconds: Time that workers were busy, summed over them.
        workers: Workers at the most.
    """

    store: str
    documents: int
    errors: int
    tokens: int
    bytes: int
    units: int
    units_run: int
    documents_run: int
    tokens_run: int
    seconds: float
    work_seconds: float
    workers: int


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


def check_errors(result: ExtractResult, allowed: float) -> None:
    """Refuse to call a run done of which too much failed.

    Raises:
        TooManyErrors: With the commonest errors.
    """
    if not exceeds(result.errors, result.documents, allowed):
        return
    from featurestore.status import run_status

    kinds = run_status(result.store).error_kinds
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
