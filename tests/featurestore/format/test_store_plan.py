"""store.json: written once, first, and the judge of who may write to the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from featurestore.errors import MismatchError, StoreError
from featurestore.format.schema import SaeColumns, StoreSchema
from featurestore.format.store_plan import STORE_JSON, StorePlan, check_place, create_store, read_plan
from tests.featurestore.stores import SCHEMA, edit_json, plan_of


def test_a_plan_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    plan = plan_of([3, 4], corpus={"files": [{"name": "größe.jsonl", "rows": 7}]})
    create_store(str(tmp_path / "store"), plan)
    assert read_plan(str(tmp_path / "store")) == plan


def test_spec_and_extra_do_not_move_the_fingerprint() -> None:
    plan = plan_of([3])
    assert replace(plan, spec={"x": 1}, extra={"at": "noon"}).fingerprint == plan.fingerprint


@pytest.mark.parametrize(
    "other",
    [plan_of([2, 1]), plan_of([3], bundle="c"), plan_of([3], replace(SCHEMA, value_bits=9))],
    ids=["units", "identity", "schema"],
)
def test_whatever_decides_a_value_moves_the_fingerprint(other: StorePlan) -> None:
    assert other.fingerprint != plan_of([3]).fingerprint


def test_the_order_of_keys_does_not_move_the_fingerprint() -> None:
    assert plan_of([3], a=1, b=2).fingerprint == plan_of([3], b=2, a=1).fingerprint


def test_the_same_job_may_come_back_and_changes_nothing(tmp_path: Path) -> None:
    create_store(str(tmp_path), plan_of([3]))
    before = (tmp_path / STORE_JSON).read_bytes()
    create_store(str(tmp_path), replace(plan_of([3]), extra={"host": "another"}))
    assert (tmp_path / STORE_JSON).read_bytes() == before


def test_another_job_is_refused_with_a_diff_of_its_settings(tmp_path: Path) -> None:
    create_store(str(tmp_path), plan_of([3], pool=("max",), model={"dtype": "float32", "name": "m"}))
    with pytest.raises(MismatchError) as caught:
        create_store(str(tmp_path), plan_of([3], pool=("max", "sum"), model={"dtype": "bfloat16", "name": "m"}))
    assert str(caught.value) == (
        f"{tmp_path} was written by another job: pool ['max'] -> ['max', 'sum']; "
        "model.dtype float32 -> bfloat16; choose another store or restore these settings"
    )


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (plan_of([3], files=[{"name": "a", "rows": 4}]), r"files\[0\].rows 3 -> 4"),
        (plan_of([3]), r"files a list of 1 -> \(none\)"),
        (plan_of([2, 1], files=[{"name": "a", "rows": 3}]), "units of 3 -> 2 documents"),
        (plan_of([3], replace(SCHEMA, value_bits=9), files=[{"name": "a", "rows": 3}]), "value_bits 8 -> 9"),
    ],
)
def test_the_diff_names_what_changed(tmp_path: Path, other: StorePlan, said: str) -> None:
    create_store(str(tmp_path), plan_of([3], files=[{"name": "a", "rows": 3}]))
    with pytest.raises(MismatchError, match=said):
        create_store(str(tmp_path), other)


def test_a_long_diff_is_cut_and_counted(tmp_path: Path) -> None:
    create_store(str(tmp_path), plan_of([3], **{f"k{i}": "x" * 200 for i in range(9)}))
    with pytest.raises(MismatchError, match="and 3 more") as caught:
        create_store(str(tmp_path), plan_of([3], **{f"k{i}": "y" * 200 for i in range(9)}))
    assert len(str(caught.value)) < 1500


def test_a_directory_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(StoreError, match="is not empty and no feature store"):
        create_store(str(tmp_path), plan_of([3]))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_where_the_store_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(StoreError, match="is a file"):
        create_store(str(tmp_path / "store"), plan_of([3]))


def test_what_a_killed_writer_left_of_store_json_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / ".store.json.1f2e3d4c.tmp").write_bytes(b'{"form')
    create_store(str(tmp_path), plan_of([3]))
    assert read_plan(str(tmp_path)) == plan_of([3])


@pytest.mark.parametrize("place", ["nowhere", "empty", "file"])
def test_what_is_no_store_is_refused_by_name(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=f"{place} is not a feature store: no store.json there"):
        read_plan(str(tmp_path / place))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": 2}, "has store format version 2; this sparsemill reads only 1"),
        ({"format": "something"}, "damaged or not a store's"),
        ({"units": [[0, 2]]}, "damaged or not a store's|cover 2 rows"),
        ({"identity": {"bundle": "other"}}, "was edited"),
        ({"schema": {"keep": []}}, "lacks 'saes'"),
    ],
)
def test_a_store_json_that_is_not_what_was_written_is_refused(tmp_path: Path, changes: dict, said: str) -> None:
    create_store(str(tmp_path), plan_of([3]))
    edit_json(tmp_path / STORE_JSON, **changes)
    with pytest.raises(StoreError, match=said):
        read_plan(str(tmp_path))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b'{"a": 1}', b"\xff"])
def test_a_damaged_store_json_is_refused_in_one_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / STORE_JSON).write_bytes(data)
    with pytest.raises(StoreError, match="is damaged or not a store's"):
        read_plan(str(tmp_path))


@pytest.mark.parametrize("units", [[(0, 2), (3, 4)], [(0, 0), (0, 4)], [(0, 3)], [(1, 4)]])
def test_units_that_do_not_tile_the_corpus_are_refused(units: list[tuple[int, int]]) -> None:
    with pytest.raises(StoreError, match="unit"):
        StorePlan(StoreSchema((), (SaeColumns("a", 4, ("max",)),), ()), {}, {}, units, 4, {})


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StoreError, match="lies below a file; give the path of a directory"):
        check_place(str(tmp_path / "file" / "store"))


def test_a_directory_that_takes_no_file_is_said() -> None:
    with pytest.raises(StoreError, match=r"/proc/store cannot be written"):
        create_store("/proc/store", plan_of([3]))
