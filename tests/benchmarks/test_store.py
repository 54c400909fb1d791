"""The benchmark of the store measures what it says: every format reads back what it wrote, sizes add up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.featurestore.stores import write_store

ROOT = Path(__file__).parents[2]


def test_every_format_reads_back_what_it_wrote_and_is_measured(tmp_path: Path) -> None:
    write_store(tmp_path / "store", (30, 30))
    command = [sys.executable, "-m", "benchmarks.store", "--store", str(tmp_path / "store"), "--sae", "l12_64"]
    options = ["--entries", "500", "--repeats", "1", "--layouts", "--json"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert {"ours", "raw npy", "Parquet, pyarrow defaults", "scipy npz", "zarr CSR", "h5ad, gzip", "svmlight"} < set(
        figures["formats"]
    )
    assert all(row[key] > 0 for row in figures["formats"].values() for key in ("bits", "write", "read"))
    assert set(figures["columns"]) == {"indices", "max", "sum", "count", "rest"}
    assert {layout["column"] for layout in figures["layouts"]} == {"indices", "max", "sum", "count"}
