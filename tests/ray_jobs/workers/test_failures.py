"""What a failure means: trying again, searching, or one sentence and the end."""

from __future__ import annotations

import errno

import pytest

from featurestore.errors import BundleError, CorpusError, JobFailed, MismatchError, StoreError
from ray_jobs.workers.failures import Kind, classify, storage_refusal, transient_storage_errors


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CorpusError("changed"), Kind.JOB),
        (MismatchError("another job's"), Kind.JOB),
        (JobFailed("another bundle"), Kind.JOB),
        (BundleError("damaged"), Kind.JOB),
        (OSError(errno.ENOSPC, "No space left on device"), Kind.JOB),
        (OSError(errno.EROFS, "Read-only file system"), Kind.JOB),
        (PermissionError(errno.EACCES, "Permission denied"), Kind.JOB),
        (OSError("When uploading part: AWS Error ACCESS_DENIED during PutObject"), Kind.JOB),
        (OSError("AWS Error SLOW_DOWN during PutObject operation"), Kind.STORAGE),
        (OSError(errno.EIO, "Input/output error"), Kind.STORAGE),
        (TimeoutError("timed out"), Kind.STORAGE),
        (ConnectionResetError("reset by peer"), Kind.STORAGE),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), Kind.PLACE),
        (MemoryError(), Kind.MEMORY),
        (ValueError("odd text"), Kind.UNIT),
        (StoreError("a row breaks a rule"), Kind.UNIT),
    ],
    ids=str,
)
def test_every_exception_has_a_kind(error: Exception, kind: Kind) -> None:
    assert classify(error, "store").kind is kind


def test_storage_that_is_full_is_one_sentence_that_says_where_and_what_to_do() -> None:
    sentence = storage_refusal(OSError(errno.ENOSPC, "No space left on device", "/data/store/parts/x"), "store")
    assert sentence == "/data/store/parts/x cannot be written: it is full; make room, and the same command goes on"


def test_a_connection_that_broke_below_a_readers_sentence_is_tried_again() -> None:
    def read() -> None:
        try:
            raise ConnectionResetError("reset by peer")
        except OSError:
            raise CorpusError("c.jsonl cannot be read (reset by peer)") from None

    with pytest.raises(OSError, match=r"c\.jsonl cannot be read"), transient_storage_errors():
        read()


@pytest.mark.parametrize("below", [FileNotFoundError("gone"), PermissionError(errno.EACCES, "no"), ValueError("csv")])
def test_a_fault_of_the_input_stays_one(below: Exception) -> None:
    with pytest.raises(CorpusError, match="cannot be read"), transient_storage_errors():
        try:
            raise below
        except (OSError, ValueError):
            raise CorpusError("c.jsonl cannot be read") from None
