"""Memory that does not grow with the store: a model of a dense column, on a store and on one four times as large."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from featurestore.format.schema import DenseColumn, StoreSchema
from featurestore.writing.writer import PartRows, StorePlan, create_store, finish_store, write_part

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DOCUMENTS, DIM, UNIT = (10_000, 40_000), 1_000, 5_000
# Thirty thousand more rows are 120 MB in float32 and 240 MB in float64. What may grow is a few bytes of each document
# and what allocators keep to themselves, which differs by this much from run to run.
GROWTH = 80 << 20
PROGRAM = """
import sys
import numpy as np
from featurestore.reader import FeatureStore
from featurestore.models.model import FORMAT, VERSION, Model
from featurestore.models.predict import predict_store
store = FeatureStore.open(sys.argv[1])
k = int(sys.argv[2])
header = {
    "format": FORMAT, "format_version": VERSION, "classes": ["a", "b"], "saes": [], "kind": "dense", "dense": "h",
    "pool": None, "binarize": None, "scale": None, "link": "softmax", "method": "hidden_mean",
    "trained_on": {"identity": dict(store.plan.identity), "fingerprint": store.fingerprint},
}
tensors = {"columns": np.arange(k), "scale": np.ones(k), "coef": np.ones((1, k)), "intercept": np.zeros(1)}
seen = [(len(batch.doc_id), batch.y_pred.sum()) for batch in predict_store(Model(header, tensors), store)]
assert sum(n for n, _ in seen) == len(store) and 0 < sum(y for _, y in seen) < len(store)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def dense_store(root: Path, n: int) -> Path:
    units = [(start, start + UNIT) for start in range(0, n, UNIT)]
    plan = StorePlan(StoreSchema((), (), (DenseColumn("h", DIM),)), {"synthetic": n}, {}, units, n, {})
    create_store(str(root), plan)
    records = []
    for unit, (start, stop) in enumerate(units):
        hidden = np.random.default_rng(unit).normal(size=(UNIT, DIM)).astype(np.float32)
        ids = [f"doc-{i:06d}" for i in range(start, stop)]
        ones = np.ones(UNIT, np.uint32)
        rows = PartRows(ids, {}, ones, np.zeros(UNIT, bool), [None] * UNIT, {}, {"h": hidden})
        records.append(write_part(str(root), plan, unit, rows))
    finish_store(str(root), records)
    return root


def test_a_dense_model_classifies_four_times_the_documents_in_no_more_memory(tmp_path: Path) -> None:
    peaks = []
    for n in DOCUMENTS:
        command = [sys.executable, "-c", PROGRAM, str(dense_store(tmp_path / str(n), n)), str(DIM)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        peaks.append(int(done.stdout.splitlines()[-1]) << 10)
    print([peak >> 20 for peak in peaks])
    assert peaks[1] - peaks[0] < GROWTH, [peak >> 20 for peak in peaks]
