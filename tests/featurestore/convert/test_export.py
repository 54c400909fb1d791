"""Exports are read by the programs that they are for, and hold what the store holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import anndata
import numpy as np
import polars as pl
import pytest
from scipy.sparse import load_npz
from sklearn.datasets import load_svmlight_file

from featurestore.checks.verify import verify_store
from featurestore.convert import anndata_zarr
from featurestore.convert import cli as export_cli
from featurestore.convert.export import export_store
from featurestore.errors import StoreError, UsageError
from featurestore.format import part
from featurestore.reader import FeatureStore
from tests.featurestore.stores import POOLS, write_store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """Three parts of several row groups each."""
    monkeypatch.setattr(part, "ROW_GROUP_BYTES", 600)
    write_store(tmp_path / "store", (7, 5, 9))
    return FeatureStore.open(str(tmp_path / "store"))


@pytest.mark.parametrize("pool", [*POOLS, "mean"])
@pytest.mark.parametrize("binarize", [None, 1.0])
def test_scipy_reads_the_npz(store: FeatureStore, tmp_path: Path, pool: str, binarize: float | None) -> None:
    done = export_store(store, str(tmp_path / "x.npz"), "npz", "l12_64", pool, binarize)
    X, expected = load_npz(tmp_path / "x.npz"), store.matrix("l12_64", pool, binarize=binarize).X
    assert X.shape == expected.shape == (done.rows, done.columns) and X.nnz == expected.nnz == done.nnz
    assert (expected != X).nnz == 0
    documents = pl.read_parquet(tmp_path / "x.npz.documents.parquet")
    assert documents.equals(store.documents().collect())


def test_scikit_learn_reads_the_svmlight_file(store: FeatureStore, tmp_path: Path) -> None:
    export_store(store, str(tmp_path / "x.svm"), "svmlight", "l12_64", "sum")
    X, y = load_svmlight_file(str(tmp_path / "x.svm"), n_features=64, dtype=np.float32, zero_based=False)
    assert (X != store.matrix("l12_64", "sum").X).nnz == 0 and y.tolist() == [0.0] * 21


def test_anndata_reads_the_zarr_directory(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anndata_zarr, "_CHUNK_ENTRIES", 7)  # so that blocks, appends and chunks do not coincide
    monkeypatch.setattr(anndata_zarr, "_APPENDED_ENTRIES", 25)
    export_store(store, str(tmp_path / "x.zarr"), "anndata", "l12_64", "max")
    adata, expected = anndata.read_zarr(tmp_path / "x.zarr"), store.matrix("l12_64", "max")
    assert (adata.X != expected.X).nnz == 0 and adata.X.shape == expected.X.shape
    assert adata.X.indptr.dtype == np.int64
    assert adata.obs_names.tolist() == expected.doc_id.tolist()
    assert adata.obs["n_tokens"].tolist() == store.documents().collect()["n_tokens"].to_list()
    assert adata.uns["sparsemill"]["fingerprint"] == store.fingerprint


def test_a_text_label_is_written_as_its_rank(store: FeatureStore, tmp_path: Path) -> None:
    rows = store.documents().collect()
    with pytest.raises(StoreError, match="'label' is missing for 4 documents"):
        export_store(store, str(tmp_path / "x.svm"), "svmlight", "l12_64", label="label")
    with pytest.raises(StoreError, match="no kept column 'nope'"):
        export_store(store, str(tmp_path / "x.svm"), "svmlight", "l12_64", label="nope")
    assert not list(tmp_path.glob("x.svm*")) and rows["label"].null_count() == 4


def test_what_cannot_be_is_refused_and_leaves_nothing(store: FeatureStore, tmp_path: Path) -> None:
    for arguments, said in (
        (("x.npz", "npz", "l12_64", "median"), "no pooling 'median'"),
        (("x.npz", "npz", "nope"), "no SAE 'nope'"),
        (("x.npz", "h5", "l12_64"), "unknown format 'h5'"),
        (("x.npz", "npz", "l12_64", "max", None, "label"), "a label is written to svmlight only"),
    ):
        out, *rest = arguments
        with pytest.raises(UsageError, match=said):
            export_store(store, str(tmp_path / out), *rest)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    (tmp_path / "there").touch()
    with pytest.raises(UsageError, match="is there already"):
        export_store(store, str(tmp_path / "there"), "npz", "l12_64")


def run(name: str, *argv: str) -> int:
    parser = argparse.ArgumentParser()
    getattr(export_cli, f"{name}_parser")(parser)
    parser.add_argument("--json", action="store_true")
    return getattr(export_cli, name)(parser.parse_args(argv))


def test_the_commands_do_it_and_say_so(store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", store.uri, str(tmp_path / "x.npz"), "--sae", "l12_64", "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["rows"], done["columns"]) == (21, 64) and Path(done["documents"]).is_file()
    assert run("compact", store.uri, str(tmp_path / "c")) == 0
    assert "21 documents of 3 parts now in 1 part" in capsys.readouterr().out
    assert verify_store(str(tmp_path / "c")).ok


def test_an_export_replaces_no_file_beside_it_unless_asked_to(store: FeatureStore, tmp_path: Path) -> None:
    beside = tmp_path / "x.npz.documents.parquet"
    beside.write_text("mine")
    with pytest.raises(UsageError, match=r"x\.npz\.documents\.parquet is there already; .* with --overwrite"):
        export_store(store, str(tmp_path / "x.npz"), "npz", "l12_64")
    assert (beside.read_text(), (tmp_path / "x.npz").exists()) == ("mine", False)
    for pool in ("max", "sum"):
        export_store(store, str(tmp_path / "x.npz"), "npz", "l12_64", pool, overwrite=True)
        assert (load_npz(tmp_path / "x.npz") != store.matrix("l12_64", pool).X).nnz == 0
    assert pl.read_parquet(beside).equals(store.documents().collect())


def test_of_directories_only_an_earlier_export_is_replaced(store: FeatureStore, tmp_path: Path) -> None:
    mine, zarr = tmp_path / "mine", tmp_path / "x.zarr"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"mine is a directory without zarr\.json, so it is not replaced"):
        export_store(store, str(mine), "anndata", "l12_64", overwrite=True)
    assert (mine / "notes.txt").read_text() == "mine"
    export_store(store, str(zarr), "anndata", "l12_64", "max")
    with pytest.raises(UsageError, match=r"x\.zarr is there already"):
        export_store(store, str(zarr), "anndata", "l12_64", "sum")
    export_store(store, str(zarr), "anndata", "l12_64", "sum", overwrite=True)
    assert (anndata.read_zarr(zarr).X != store.matrix("l12_64", "sum").X).nnz == 0
