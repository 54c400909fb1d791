"""Whatever obeys the rules is written, verified without a false alarm, and read back: rows from hypothesis."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.base.poolings import is_count_pool
from featurestore.checks.verify import verify_store
from featurestore.format import part
from featurestore.format.rows import PartRows, SparseColumn, concat_rows, from_batch
from featurestore.format.schema import DenseColumn, SaeColumns, StoreSchema, round_values
from featurestore.reader import FeatureStore
from featurestore.writing.writer import StorePlan, create_store, finish_store, write_part

STORES = 50
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEPT: dict[str, st.SearchStrategy[Any]] = {
    "string": ANY_TEXT,
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float64": st.floats(),
    "bool": st.booleans(),
}
POOLS = st.lists(
    st.sampled_from(["max", "sum", "count", "last", "top1", "top20"]), min_size=1, max_size=6, unique=True
).map(tuple)
WIDTHS = st.one_of(st.integers(1, 40), st.sampled_from([2**16, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1]))


@st.composite
def schemas(draw: st.DrawFn) -> StoreSchema:
    keep = draw(
        st.dictionaries(ANY_TEXT.filter(bool).map(lambda text: f"k {text}"), st.sampled_from(sorted(KEPT)), max_size=3)
    )
    widths = draw(st.lists(WIDTHS, max_size=2))
    saes = tuple(SaeColumns(f"sae{i}", width, draw(POOLS)) for i, width in enumerate(widths))
    dense = tuple(DenseColumn(f"h{i}", dim) for i, dim in enumerate(draw(st.lists(st.integers(1, 4), max_size=2))))
    return StoreSchema(tuple(keep.items()), saes, dense, draw(st.sampled_from([1, 7, 8, 12, 23, 24])))


@st.composite
def stores(draw: st.DrawFn) -> tuple[StoreSchema, list[PartRows]]:
    schema = draw(schemas())
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    ids = draw(st.lists(ANY_TEXT, min_size=sum(sizes), max_size=sum(sizes), unique=True))
    parts = []
    for size in sizes:
        parts.append(draw(part_rows(schema, ids[:size])))
        del ids[:size]
    return schema, parts


@st.composite
def part_rows(draw: st.DrawFn, schema: StoreSchema, ids: list[str]) -> PartRows:
    n = len(ids)
    error = [draw(st.none() | ANY_TEXT) for _ in ids]
    tokens = [0 if text is not None else draw(st.sampled_from([0, 1, 7, 2**32 - 1])) for text in error]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dense = {column.name: rng.normal(size=(n, column.dim)).astype(np.float32) for column in schema.dense}
    return PartRows(
        doc_id=list(ids),
        keep={name: [draw(st.none() | KEPT[kind]) for _ in ids] for name, kind in schema.keep},
        n_tokens=np.uint32(tokens),
        truncated=np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=bool),
        error=error,
        sparse={sae.name: draw(sparse_columns(sae, tokens)) for sae in schema.saes},
        dense=dense,
    )


@st.composite
def sparse_columns(draw: st.DrawFn, sae: SaeColumns, tokens: list[int]) -> SparseColumn:
    feature = st.one_of(st.integers(0, sae.d_sae - 1), st.sampled_from([0, sae.d_sae - 1]))
    rows = [sorted(draw(st.sets(feature, max_size=min(sae.d_sae, 6)))) if n else [] for n in tokens]
    of = [n for n, row in zip(tokens, rows, strict=True) for _ in row]
    positive = st.floats(min_value=0, exclude_min=True, max_value=float(np.finfo(np.float32).max), width=32)
    values: dict[str, np.ndarray] = {}
    for pool in sae.pools:
        always = pool in {"max", "sum", "count"} or pool == sae.pools[0]  # so that no feature is zero everywhere
        if is_count_pool(pool):
            values[pool] = np.array([draw(st.integers(1 if always else 0, n)) for n in of], dtype=np.uint32)
        else:
            values[pool] = np.array([draw(positive if always else positive | st.just(0.0)) for _ in of], np.float32)
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return SparseColumn(indptr, np.array([i for row in rows for i in row], dtype=np.uint32), values)


def write(root: Path, schema: StoreSchema, parts: list[PartRows]) -> StorePlan:
    ends = np.cumsum([len(rows) for rows in parts]).tolist()
    plan = StorePlan(schema, {}, {}, list(zip([0, *ends[:-1]], ends, strict=True)), ends[-1], {})
    create_store(str(root), plan)
    finish_store(str(root), [write_part(str(root), plan, unit, rows) for unit, rows in enumerate(parts)])
    return plan


def assert_same_rows(there: PartRows, written: PartRows, schema: StoreSchema) -> None:
    assert there.doc_id == written.doc_id and there.error == written.error
    for name, column in written.keep.items():
        assert [repr(value) for value in there.keep[name]] == [repr(value) for value in column]  # NaN equals NaN
    assert there.n_tokens.tolist() == written.n_tokens.tolist()
    assert there.truncated.tolist() == written.truncated.tolist()
    for sae in schema.saes:
        one, other = there.sparse[sae.name], written.sparse[sae.name]
        assert one.indptr.tolist() == other.indptr.tolist() and one.indices.tolist() == other.indices.tolist()
        for pool, values in other.values.items():
            if is_count_pool(pool):
                assert one.values[pool].tolist() == values.tolist()
            else:
                assert_rounded(one.values[pool], values, schema.value_bits)
    for name, matrix in written.dense.items():
        expected = np.where((written.n_tokens == 0)[:, None], np.float32(np.nan), matrix)
        np.testing.assert_array_equal(there.dense[name], expected)


def assert_rounded(stored: np.ndarray, exact: np.ndarray, bits: int) -> None:
    """Within half a step of `bits` significant bits, save at float32's two ends, where the format says what happens."""
    stored, exact = stored.astype(np.float64), exact.astype(np.float64)
    largest = float(round_values(np.finfo(np.float32).max.reshape(1), bits)[0])
    smallest = 2.0 ** (-126 - bits + 1)  # the step of subnormal numbers
    assert ((stored > 0) == (exact > 0)).all()
    error = np.abs(stored - np.minimum(exact, largest))
    assert (error <= np.maximum(exact * 2.0**-bits, smallest)).all()


@settings(max_examples=STORES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(stores(), st.booleans())
def test_any_store_is_read_back_and_verifies(store: tuple[StoreSchema, list[PartRows]], small_groups: bool) -> None:
    schema, parts = store
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if small_groups:
            patch.setattr(part, "ROW_GROUP_BYTES", 40)
        root = Path(folder) / "store"
        write(root, schema, parts)
        assert verify_store(str(root)).problems == ()
        assert verify_store(str(root), quick=True).problems == ()
        opened = FeatureStore.open(str(root))
        columns = schema.arrow_schema().names
        pieces = [from_batch(schema, batch) for _, _, batch in opened.groups(columns)]
        assert_same_rows(concat_rows(pieces), concat_rows(parts), schema)
        for sae in schema.saes:
            X, _ = opened.matrix(sae.name, sae.pools[0])
            written = concat_rows(parts).sparse[sae.name]
            assert X.shape == (len(opened), sae.d_sae)
            assert X.indices.tolist() == written.indices.tolist() and X.indptr.tolist() == written.indptr.tolist()


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(stores(), st.integers(20, 400))
def test_the_bytes_of_a_part_do_not_depend_on_how_its_rows_come(
    store: tuple[StoreSchema, list[PartRows]], group_bytes: int
) -> None:
    schema, parts = store
    n = sum(len(rows) for rows in parts)
    plan = StorePlan(schema, {}, {}, [(0, n)], n, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part, "ROW_GROUP_BYTES", group_bytes)
        whole = part.encode_part(plan, 0, concat_rows(parts))
        assert part.encode_chunks(plan, 0, iter(parts)).equals(whole)


def test_a_unit_whose_documents_are_all_empty_is_a_part_like_any_other(tmp_path: Path) -> None:
    schema = StoreSchema((), (SaeColumns("s", 8, ("max",)),), (DenseColumn("h", 2),))
    empty = SparseColumn(np.zeros(4, np.int64), np.uint32([]), {"max": np.float32([])})
    rows = PartRows(
        ["a", "b", "c"],
        {},
        np.zeros(3, np.uint32),
        np.zeros(3, bool),
        [None] * 3,
        {"s": empty},
        {"h": np.zeros((3, 2), np.float32)},
    )
    write(tmp_path, schema, [rows])
    assert verify_store(str(tmp_path)).problems == ()
    assert FeatureStore.open(str(tmp_path)).matrix().X.shape == (3, 8)
    assert np.isnan(FeatureStore.open(str(tmp_path)).dense("h")).all()
