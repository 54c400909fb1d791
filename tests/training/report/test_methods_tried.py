"""Maps of what was tried: each cell is one method."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tests.training.conftest import make_spec
from tests.training.stores import SAE, build_store, make_documents
from training.report.methods_tried import heat_maps
from training.report.study_files import read_study
from training.study import run_study


def test_methods_that_differ_in_more_than_pooling_and_threshold_are_not_averaged(tmp_path: Path) -> None:
    store = build_store(tmp_path / "s", make_documents(n=90, strength=0.9))
    other = build_store(tmp_path / "weak", make_documents(n=90, strength=0.55, seed=2))
    pools = {"sae": SAE, "pool": ["max", "sum"]}
    features = [
        {**pools, "binarize": [0.1234567, 0.1234568]},
        {**pools, "store": other},
        {**pools, "min_documents": 5},
    ]
    found = run_study(make_spec(store, tmp_path / "out", features=features, baselines=[]))
    maps = {one["title"]: one for one in heat_maps(read_study(found.spec.out))}
    f1 = {one.method: f"{one.macro_f1.value:.3f}" for one in found.summary}
    shown = {
        (title, pool, column): cell
        for title, one in maps.items()
        for pool, cells in one["rows"]
        for column, cell in zip(one["columns"], cells, strict=True)
    }
    expected = {}
    for pool in ("max", "sum"):
        expected |= {(SAE, pool, f"> {t}"): f1[f"{SAE}:{pool}>{t}"] for t in ("0.1234567", "0.1234568")}
        expected[f"weak/{SAE}", pool, "values"] = f1[f"weak/{SAE}:{pool}"]
        expected[f"{SAE}, features of 5 documents or more", pool, "values"] = f1[f"{SAE}:{pool} df5"]
    assert shown == expected


def test_files_that_do_not_say_what_differs_have_no_map_of_it(tmp_path: Path) -> None:
    store = build_store(tmp_path / "s", make_documents(n=90))
    features = [{"sae": SAE, "pool": ["max", "sum"], "min_documents": n} for n in (1, 5)]
    found = run_study(make_spec(store, tmp_path / "out", features=features, baselines=[]))
    assert len(heat_maps(read_study(found.spec.out))) == 2
    rows = pl.read_parquet(found.paths["results"])
    rows.drop("store", "min_documents").write_parquet(found.paths["results"])  # as earlier versions wrote them
    assert heat_maps(read_study(found.spec.out)) == []
