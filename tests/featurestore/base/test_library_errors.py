"""What native libraries raise at their borders: a full disk is an OSError with a path, a damaged file one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from featurestore.base.library_errors import reading, writing
from featurestore.errors import StoreError

WRITERS = {
    "python": "Path(path).write_bytes(bytes(100_000))",
    "pyarrow": "pa.OSFile(path, 'wb').write(bytes(100_000))",
    "parquet": "pq.write_table(pa.table({'a': os.urandom(100_000).hex().split('0')}), path)",
    "polars": "pl.DataFrame({'a': os.urandom(100_000).hex().split('0')}).lazy().sink_parquet(open(path, 'wb'))",
    "safetensors": "safetensors.numpy.save_file({'a': np.zeros(100_000)}, path)",
    "tokenizers": "Tokenizer(models.WordLevel({str(i): i for i in range(9_000)}, unk_token='0')).save(path)",
    "our own": "atomic_write(*filesystem(path), bytes(100_000))",
}
WRITER = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np, polars as pl, pyarrow as pa, pyarrow.parquet as pq, safetensors.numpy
from tokenizers import Tokenizer, models
from featurestore.storage.files import atomic_write, filesystem
from featurestore.base.library_errors import writing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
for number, line in enumerate(sys.argv[2:]):
    path = f"{sys.argv[1]}/{number}"
    try:
        with writing(path):
            exec(line)
    except OSError as error:
        print(error.errno, error.filename == path, error.strerror)
"""


def test_what_cannot_be_written_names_number_and_path(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), *WRITERS.values()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=120)
    told = dict(zip(WRITERS, done.stdout.splitlines(), strict=True))
    assert told == dict.fromkeys(WRITERS, "27 True File too large"), done.stderr


def test_other_exceptions_pass_as_they_are() -> None:
    for error in (ValueError("line 28"), StoreError("os error 28"), OSError("no number"), OSError(2, "gone", "there")):
        with pytest.raises(type(error)) as caught, writing("here"):
            raise error
        assert caught.value is error


def test_what_cannot_be_read_is_one_sentence_without_secrets() -> None:
    with pytest.raises(StoreError) as caught, reading("s3://key:secret@bucket/x", StoreError, "get it again"):
        raise RuntimeError("a\nb")
    assert str(caught.value) == "s3://bucket/x cannot be read (RuntimeError: a b); get it again"
