"""What was written comes back: as CSR, as batches, as metadata, as dense vectors, from disk and from URLs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.base.poolings import is_pool
from featurestore.errors import StoreError
from featurestore.format import part
from featurestore.format.rows import PartRows
from featurestore.format.schema import SaeColumns, StoreSchema, round_values
from featurestore.reader import FeatureStore
from featurestore.writing.writer import SparseColumn, create_store, finish_store, write_part
from tests.featurestore.stores import POOLS, SCHEMA, edit_json, plan_of, random_rows, write_store


def dense_of(parts: list[PartRows], sae: str, pool: str, d_sae: int) -> np.ndarray:
    """The expected matrix [rows, d_sae] by plain loops."""
    blocks = []
    for rows in parts:
        sparse, block = rows.sparse[sae], np.zeros((len(rows), d_sae), np.float32)
        values = sparse.values[pool].astype(np.float32)
        values = round_values(values, 8) if pool in {"max", "sum", "last"} else values
        for i in range(len(rows)):
            for k in range(sparse.indptr[i], sparse.indptr[i + 1]):
                block[i, sparse.indices[k]] = values[k]
        blocks.append(block)
    return np.concatenate(blocks)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, list[PartRows]]:
    root = tmp_path_factory.mktemp("store")
    _, parts = write_store(root, (7, 5, 9))
    return FeatureStore.open(str(root)), parts


@pytest.mark.parametrize("pool", POOLS)
def test_a_pooling_comes_back_in_input_order(written: tuple[FeatureStore, list[PartRows]], pool: str) -> None:
    store, parts = written
    X, doc_id = store.matrix("l12_64", pool=pool)
    assert isinstance(X, sp.csr_matrix) and X.dtype == np.float32 and X.shape == (21, 64)
    assert np.array_equal(X.toarray(), dense_of(parts, "l12_64", pool, 64))
    assert doc_id.tolist() == [doc_id for rows in parts for doc_id in rows.doc_id]


def test_explicit_zeros_are_dropped(written: tuple[FeatureStore, list[PartRows]]) -> None:
    X = written[0].matrix("l12_64", pool="last").X
    assert X.nnz == np.count_nonzero(X.data) < written[0].matrix("l12_64", pool="max").X.nnz


def test_mean_is_the_stored_sum_by_the_tokens(written: tuple[FeatureStore, list[PartRows]]) -> None:
    store, parts = written
    n_tokens = np.concatenate([rows.n_tokens for rows in parts])[:, None]
    expected = dense_of(parts, "l9_8", "sum", 8) / np.maximum(n_tokens, 1).astype(np.float32)
    assert np.array_equal(store.matrix("l9_8", pool="mean").X.toarray(), expected)


@pytest.mark.parametrize("threshold", [0, 0.0, 1.0, 2.5])
def test_binarised_features_are_one_above_the_threshold(written, threshold: float) -> None:
    store, parts = written
    expected = (dense_of(parts, "l12_64", "sum", 64) > threshold).astype(np.float32)
    X = store.matrix("l12_64", pool="sum", binarize=threshold).X
    assert np.array_equal(X.toarray(), expected) and (X.data == 1).all()


@pytest.mark.parametrize("binarize", [None, 1.0])
def test_batches_are_the_rows_of_the_matrix(written, binarize: float | None) -> None:
    store, _ = written
    X, doc_id = store.matrix("l12_64", "max", binarize)
    batches = list(store.batches("l12_64", "max", binarize))
    assert len(batches) == 3
    assert (sp.vstack([batch.X for batch in batches]) != X).nnz == 0
    assert np.concatenate([batch.doc_id for batch in batches]).tolist() == doc_id.tolist()


def test_a_batch_is_a_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "ROW_GROUP_BYTES", 2000)
    _, parts = write_store(tmp_path, (60, 30))
    store = FeatureStore.open(str(tmp_path))
    batches = list(store.batches("l12_64"))
    assert len(batches) > 5 and max(batch.X.nnz for batch in batches) * 6 * 4 <= 2000
    assert np.array_equal(store.matrix("l12_64").X.toarray(), dense_of(parts, "l12_64", "max", 64))
    assert np.array_equal(np.isnan(store.dense("resid_post_9__hidden_mean")[:, 0]), no_tokens(parts))


def no_tokens(parts: list[PartRows]) -> np.ndarray:
    return np.concatenate([rows.n_tokens for rows in parts]) == 0


def test_matrices_can_be_changed_in_place(written: tuple[FeatureStore, list[PartRows]]) -> None:
    for X in (written[0].matrix("l12_64").X, next(written[0].batches("l12_64")).X):
        X.data *= 2
        X.indices[0] = X.indices[0]


def test_matrices_have_int32_indices_where_they_fit(written: tuple[FeatureStore, list[PartRows]]) -> None:
    X = written[0].matrix("l12_64").X
    assert X.indices.dtype == X.indptr.dtype == np.int32  # several scikit-learn solvers refuse int64


def test_documents_are_a_lazy_frame_in_input_order(written: tuple[FeatureStore, list[PartRows]]) -> None:
    store, parts = written
    frame = store.documents()
    assert isinstance(frame, pl.LazyFrame)
    documents = frame.collect()
    assert documents.columns == ["doc_id", "label", "score", "group", "flag", "n_tokens", "truncated", "error"]
    for name in ("label", "score", "group", "flag"):
        assert documents[name].to_list() == [value for rows in parts for value in rows.keep[name]]
    assert documents["error"].to_list() == [error for rows in parts for error in rows.error]
    assert documents["n_tokens"].to_list() == np.concatenate([rows.n_tokens for rows in parts]).tolist()
    assert documents["truncated"].to_list() == np.concatenate([rows.truncated for rows in parts]).tolist()


def test_dense_vectors_come_back_exactly_and_nan_where_there_are_none(written) -> None:
    store, parts = written
    expected = np.concatenate([rows.dense["resid_post_9__hidden_mean"] for rows in parts])
    expected[no_tokens(parts)] = np.nan
    dense = store.dense("resid_post_9__hidden_mean")
    assert dense.dtype == np.float32 and np.array_equal(dense, expected, equal_nan=True)
    assert store.dense_names == ("resid_post_9__hidden_mean",)


def test_the_store_knows_its_size_and_state(written: tuple[FeatureStore, list[PartRows]]) -> None:
    store, parts = written
    status = store.status()
    assert len(store) == status.rows == status.rows_done == 21
    assert (status.units_done, status.units, status.errors, status.complete) == (3, 3, 2, True)
    assert status.tokens == sum(rows.total_tokens for rows in parts)
    assert status.bytes == sum(path.stat().st_size for path in (Path(store.uri) / "parts").iterdir())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: s.matrix("l12"), "no SAE 'l12' in this store; it holds: l12_64, l9_8"),
        (lambda s: s.matrix(), "say which SAE .* it holds: l12_64, l9_8"),
        (lambda s: s.matrix("l9_8"), "no pooling 'max' of SAE 'l9_8' .* it holds: sum, mean"),
        (lambda s: s.matrix("l12_64", "median"), "it holds: max, sum, count, last, top2, mean"),
        (lambda s: s.matrix("l12_64", binarize=-1.0), "binarize must be a threshold >= 0, not -1.0"),
        (lambda s: s.matrix("l12_64", binarize=float("nan")), "binarize must be a threshold >= 0, not nan"),
        (lambda s: s.batches("l12_64", "median"), "no pooling 'median'"),
        (lambda s: s.dense("hidden"), "no dense column 'hidden' .* it holds: resid_post_9__hidden_mean"),
    ],
)
def test_asking_for_what_is_not_there_names_what_is(written, call, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        call(written[0])


def test_a_store_without_sum_has_no_mean(tmp_path: Path) -> None:
    write_store(tmp_path, (3,), StoreSchema((), (SaeColumns("s", 8, ("max",)),), ()))
    store = FeatureStore.open(str(tmp_path))
    with pytest.raises(StoreError, match=r"no pooling 'mean' of SAE 's' .* it holds: max$"):
        store.matrix(pool="mean")


def test_the_only_sae_need_not_be_named(tmp_path: Path) -> None:
    _, parts = write_store(tmp_path, (3,), StoreSchema((), (SaeColumns("s", 8, ("max",)),), ()))
    assert np.array_equal(FeatureStore.open(str(tmp_path)).matrix().X.toarray(), dense_of(parts, "s", "max", 8))


def test_an_incomplete_store_is_refused_unless_asked_for(tmp_path: Path) -> None:
    plan = plan_of([3, 4, 2])
    create_store(str(tmp_path), plan)
    write_part(str(tmp_path), plan, 1, random_rows(SCHEMA, 4))
    with pytest.raises(StoreError, match="is incomplete: 1 of 3 units are there; rerun extract to finish it"):
        FeatureStore.open(str(tmp_path))
    store = FeatureStore.open(str(tmp_path), partial=True)
    status = store.status()
    assert (status.units_done, status.rows_done, status.rows, status.complete) == (1, 4, 9, False)
    assert len(store) == store.matrix("l9_8", "sum").X.shape[0] == store.documents().collect().height == 4


def test_a_store_without_any_part_can_be_looked_at(tmp_path: Path) -> None:
    create_store(str(tmp_path), plan_of([3]))
    store = FeatureStore.open(str(tmp_path), partial=True)
    assert store.matrix("l12_64").X.shape == (0, 64)
    assert store.documents().collect().columns[0] == "doc_id"
    assert store.dense("resid_post_9__hidden_mean").shape == (0, 3)


def test_all_parts_without_a_manifest_are_no_complete_store(tmp_path: Path) -> None:
    write_store(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"3 of 3 units are there but no manifest\.json; rerun extract"):
        FeatureStore.open(str(tmp_path))


def test_a_manifest_does_not_make_up_for_a_lost_part(tmp_path: Path) -> None:
    write_store(tmp_path)
    (tmp_path / "parts/part-000001.parquet").unlink()
    with pytest.raises(StoreError, match="2 of 3 units are there"):
        FeatureStore.open(str(tmp_path))


def test_a_manifest_without_its_totals_is_one_sentence(tmp_path: Path) -> None:
    write_store(tmp_path)
    edit_json(tmp_path / "manifest.json", tokens="many")
    with pytest.raises(StoreError, match="its manifest lacks its totals; delete it and rerun extract"):
        FeatureStore.open(str(tmp_path)).status()


def test_a_manifest_of_another_job_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path)
    edit_json(tmp_path / "manifest.json", fingerprint="0" * 64)
    with pytest.raises(StoreError, match="belongs to another job"):
        FeatureStore.open(str(tmp_path))


def test_a_damaged_part_is_named_when_it_is_read(tmp_path: Path) -> None:
    write_store(tmp_path)
    path = tmp_path / "parts/part-000001.parquet"
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(9)  # l12_64__max
    data[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    path.write_bytes(data)
    store = FeatureStore.open(str(tmp_path))
    with pytest.raises(StoreError, match="part 1 cannot be read"):
        store.matrix("l12_64", "max")


def test_a_part_under_another_units_name_is_not_read(tmp_path: Path) -> None:
    write_store(tmp_path, (5, 5))
    (tmp_path / "parts/part-000001.parquet").write_bytes((tmp_path / "parts/part-000000.parquet").read_bytes())
    with pytest.raises(StoreError, match="part 1 holds unit 0"):
        FeatureStore.open(str(tmp_path)).matrix("l12_64")


def test_a_store_behind_an_fsspec_url_reads_the_same(written: tuple[FeatureStore, list[PartRows]]) -> None:
    store, _ = written
    uri = "memory://test-reader/store"
    write_store(uri, (7, 5, 9))
    remote = FeatureStore.open(uri)
    assert (remote.matrix("l12_64").X != store.matrix("l12_64").X).nnz == 0
    assert remote.documents().collect().equals(store.documents().collect())
    assert remote.verify().ok


@st.composite
def schemas(draw: st.DrawFn) -> StoreSchema:
    pools = st.lists(st.sampled_from(["max", "sum", "count", "last", "top1", "top20"]), min_size=1, unique=True)
    pools = pools.filter(lambda names: any(is_pool(name) and name not in {"last", "top1", "top20"} for name in names))
    saes = tuple(
        SaeColumns(f"s{i}", draw(st.integers(1, 70)), tuple(draw(pools))) for i in range(draw(st.integers(0, 2)))
    )
    keep = draw(st.lists(st.sampled_from(["string", "int64", "float64", "bool"]), max_size=2))
    return StoreSchema(tuple((f"k {i}", kind) for i, kind in enumerate(keep)), saes, (), draw(st.integers(8, 24)))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=schemas(), sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3), seed=st.integers(0, 999))
def test_any_store_comes_back_as_it_was_written(
    tmp_path: Path, schema: StoreSchema, sizes: list[int], seed: int
) -> None:
    root = str(tmp_path / f"{len(list(tmp_path.iterdir()))}")
    plan = plan_of(sizes, schema)
    parts = [random_rows(schema, n, seed * 3 + unit, f"u{unit}") for unit, n in enumerate(sizes)]
    create_store(root, plan)
    finish_store(root, [write_part(root, plan, unit, rows) for unit, rows in enumerate(parts)])
    store = FeatureStore.open(root)
    assert store.verify().problems == ()
    for sae in schema.saes:
        for pool in sae.pools:
            X, doc_id = store.matrix(sae.name, pool)
            expected = sp.vstack([_csr(rows.sparse[sae.name], pool, sae.d_sae, schema.value_bits) for rows in parts])
            assert np.array_equal(X.toarray(), expected.toarray())
            assert doc_id.tolist() == [doc_id for rows in parts for doc_id in rows.doc_id]
    documents = store.documents().collect()
    for name, _ in schema.keep:
        assert documents[name].to_list() == [value for rows in parts for value in rows.keep[name]]


def _csr(sparse: SparseColumn, pool: str, d_sae: int, value_bits: int) -> sp.csr_matrix:
    values = sparse.values[pool]
    values = round_values(values, value_bits) if values.dtype == np.float32 else values
    shape = (len(sparse.indptr) - 1, d_sae)
    return sp.csr_matrix((values, sparse.indices.astype(np.int32), sparse.indptr), shape=shape)
