"""Tables that Python reads (fsspec's) are decoded in this thread: Arrow's have nothing of Python's to let go of."""

from __future__ import annotations

from contextlib import ExitStack

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.finding.files import find_files
from featurestore.tables.parquet import open_parquet, parquet_records
from featurestore.tables.record import Wanted
from tests.interpreter import foreign_visits


def test_no_thread_of_arrows_reads_a_file_of_pythons() -> None:
    memory = fsspec.filesystem("memory")
    with memory.open("/threads/a.parquet", "wb") as sink:
        pq.write_table(pa.table({"id": range(900), "text": ["some text"] * 900}), sink, row_group_size=100)
    (file,) = find_files(["memory://threads/a.parquet"], None)
    try:
        with foreign_visits() as visits:
            for _ in range(10):
                with ExitStack() as stack:
                    records = list(parquet_records(open_parquet(file, stack), Wanted("text", "id"), 0, 900))
    finally:
        memory.rm("/threads", recursive=True)
    assert len(records) == 900 and (visits.during, visits.late) == (0, 0)
