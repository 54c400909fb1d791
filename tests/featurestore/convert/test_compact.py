"""Compacting: the same rows, in fewer parts, in a store that proves itself and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from featurestore.checks.verify import verify_store
from featurestore.convert.compact import compact_store
from featurestore.errors import MismatchError, StoreError
from featurestore.format.part import encode_part
from featurestore.format.rows import concat_rows
from featurestore.format.store_plan import create_store, read_plan
from featurestore.reader import FeatureStore
from featurestore.writing.writer import finish_store, read_record, write_part
from tests.featurestore.conftest import Place
from tests.featurestore.stores import edit_json, plan_of, write_store

SIZES = (7, 5, 9, 3, 8)


@pytest.fixture
def store(place: Place) -> Place:
    write_store(place.uri, SIZES)
    return place


def merged(place: Place, part_bytes: int = 1 << 30) -> Place:
    out = place.beside("-compact")
    compact_store(place.uri, out.uri, part_bytes)
    return out


def test_the_rows_are_the_same_and_the_new_store_verifies(store: Place) -> None:
    old, new = FeatureStore.open(store.uri), FeatureStore.open(merged(store).uri)
    assert verify_store(new.uri).problems == ()
    assert new.units == (0,) and len(new) == len(old) == 32
    assert new.documents().collect().equals(old.documents().collect())
    for sae in old.schema.saes:
        for pool in sae.pools:
            assert (old.matrix(sae.name, pool).X != new.matrix(sae.name, pool).X).nnz == 0


def test_a_part_is_what_a_job_with_these_units_would_have_written(tmp_path: Path) -> None:
    _, parts = write_store(tmp_path / "a", SIZES)
    plan = compact_store(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b/parts/part-000000.parquet").read_bytes() == bytes(encode_part(plan, 0, concat_rows(parts)))


def test_parts_grow_to_the_size_asked_for_and_units_stay_runs(store: Place) -> None:
    sizes = [len(store.read(f"parts/part-{unit:06d}.parquet")) for unit in range(5)]
    new = read_plan(merged(store, sizes[0] + sizes[1]).uri)
    assert new.units[0] == (0, 12) and 2 < len(new.units) < 5
    assert new.units[-1][1] == 32


def test_the_new_store_records_its_origin_and_is_another_store(store: Place) -> None:
    out = merged(store)
    old, new = read_plan(store.uri), read_plan(out.uri)
    assert new.identity["origin"]["fingerprint"] == old.fingerprint != new.fingerprint
    with pytest.raises(MismatchError, match="origin"):
        create_store(out.uri, plan_of(SIZES))


def test_an_origin_that_is_not_true_is_found(tmp_path: Path) -> None:
    write_store(tmp_path / "a", SIZES)
    compact_store(str(tmp_path / "a"), str(tmp_path / "b"))
    document = json.loads((tmp_path / "b/store.json").read_text())
    document["identity"]["origin"]["units"][0:2] = [[0, 5], [5, 12]]
    edit_json(tmp_path / "b/store.json", identity=document["identity"])
    assert any("its 'origin' does not give the fingerprint" in p for p in verify_store(str(tmp_path / "b")).problems)


def test_the_same_command_goes_on_where_it_stopped(store: Place) -> None:
    out = merged(store, 1)
    before = [out.read(f"parts/part-{unit:06d}.parquet") for unit in range(5)]
    out.delete("parts/part-000003.parquet")
    out.delete("manifest.json")
    merged(store, 1)
    assert [out.read(f"parts/part-{unit:06d}.parquet") for unit in range(5)] == before
    assert verify_store(out.uri).ok


def test_a_damaged_store_is_not_compacted(store: Place) -> None:
    store.write("parts/part-000001.parquet", store.read("parts/part-000001.parquet")[:-1])
    with pytest.raises(StoreError, match="a damaged store is not compacted"):
        merged(store)


def test_a_store_that_breaks_a_rule_is_not_compacted_even_if_its_manifest_vouches_for_it(tmp_path: Path) -> None:
    plan, parts = write_store(tmp_path / "a", (7, 5))
    write_part(str(tmp_path / "a"), plan, 1, parts[1])
    data = bytearray((tmp_path / "a/parts/part-000001.parquet").read_bytes())
    data[100] ^= 1
    (tmp_path / "a/parts/part-000001.parquet").write_bytes(data)
    finish_store(str(tmp_path / "a"), [read_record(str(tmp_path / "a"), unit) for unit in range(2)])
    with pytest.raises(StoreError, match="part-000001"):
        compact_store(str(tmp_path / "a"), str(tmp_path / "b"))
