"""Memory that does not grow with the store: each way of reading one, on a store and on one four times as large."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.synthetic_store import make_store

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DOCUMENTS, FEATURES = (10_000, 40_000), 1_000
# Thirty million more non-zeros are 240 MB as a matrix and 2 GB as Python's numbers. What may grow is a few bytes of
# each document and what allocators keep to themselves, which differs by this much from run to run.
GROWTH = 80 << 20

# Each in a process of its own, of whose peak only VmHWM tells: rusage also counts what it was forked from.
WAYS = {
    "batches": "for X, _ in store.batches(): pass",
    "statistics": "store.statistics(labels='label')",
    "documents": "store.documents().select('doc_id').sink_parquet(out)",
    "take": "assert store.take([f'doc-{i:08d}' for i in range(300, 0, -1)]).X.shape[0] == 300",
    "verify": "assert store.verify().ok",
    "npz": "export_store(store, out, 'npz')",
    "svmlight": "export_store(store, out, 'svmlight', label='label')",
    "anndata": "export_store(store, out, 'anndata')",
}
PROGRAM = """
import sys
from featurestore.convert.export import export_store
from featurestore.reader import FeatureStore
store, out = FeatureStore.open(sys.argv[1]), sys.argv[2]
{way}
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("memory")
    for n in DOCUMENTS:
        make_store(root / str(n), n, FEATURES, unit=5_000, processes=1)
    return [root / str(n) for n in DOCUMENTS]


@pytest.mark.parametrize("way", WAYS)
def test_four_times_the_documents_take_no_more_memory(stores: list[Path], tmp_path: Path, way: str) -> None:
    peaks = []
    for store in stores:
        command = [sys.executable, "-c", PROGRAM.format(way=WAYS[way]), str(store), str(tmp_path / store.name)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        peaks.append(int(done.stdout.splitlines()[-1]) << 10)
    print(way, [peak >> 20 for peak in peaks])
    assert peaks[1] - peaks[0] < GROWTH, [peak >> 20 for peak in peaks]
