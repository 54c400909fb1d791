"""Rows of the result files agree with what they are rows of."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tests.training.conftest import make_spec
from tests.training.stores import build_store, make_documents
from training.study import run_study


def test_a_fold_has_one_number_in_both_files_where_a_regime_leaves_some_empty(tmp_path: Path) -> None:
    store = build_store(tmp_path / "s", make_documents(n=90, classes=("a", "a too", "b")))
    split = {"seeds": 3, "folds": 5}
    spec = make_spec(
        store, tmp_path / "out", features=[], baselines=["hidden_mean"], split=split, regimes={"train_sizes": [6]}
    )
    found = run_study(spec)
    train = pl.read_parquet(found.paths["split"]).filter(pl.col("role") == "train")
    folds = pl.read_parquet(found.paths["folds"])
    keys = ["condition", "seed", "fold"]
    assert folds.select(keys).unique().sort(keys).equals(train.select(keys).unique().sort(keys))
    held = {key: rows.get_column("fold").n_unique() for key, rows in train.partition_by(keys[:2], as_dict=True).items()}
    assert min(held.values()) < 5  # else nothing is shown
    for (condition, seed, fold), rows in folds.filter(pl.col("method") == "majority").group_by(keys):
        mine = train.filter(pl.col("condition") == condition, pl.col("seed") == seed)
        fit, validate = (mine.filter(inside)["label"] for inside in (pl.col("fold") != fold, pl.col("fold") == fold))
        counts = {name: int((fit == name).sum()) for name in ("a", "a too", "b")}
        commonest = max(counts, key=lambda name: counts[name])  # among equals the first, as the baseline has it
        hits, n = int((validate == commonest).sum()), len(validate)
        f1 = 2 * hits / (hits + n)
        classes = len({commonest, *validate})
        assert rows["validation_macro_f1"].item() == pytest.approx(f1 / classes)
