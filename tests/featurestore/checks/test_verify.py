"""Every way to spoil a store is found, and the report says where."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.checks.verify import verify_store
from featurestore.errors import StoreError
from featurestore.format import part
from featurestore.reader import FeatureStore
from featurestore.writing.writer import create_store, finish_store, read_record, write_part
from tests.featurestore.stores import SCHEMA, edit_json, plan_of, random_rows, write_store

SIZES = (9, 6, 9)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_store(tmp_path / "store", SIZES)
    return tmp_path / "store"


def part_file(store: Path, unit: int) -> Path:
    return store / f"parts/part-{unit:06d}.parquet"


def rewrite(store: Path, unit: int, change: Callable[[pa.Table], pa.Table], renew: bool = True) -> None:
    """Replace a part by a hand-made Parquet file with the same footer; with `renew` the manifest vouches for it."""
    path = part_file(store, unit)
    file = pq.ParquetFile(path)
    footer = {k: v for k, v in file.metadata.metadata.items() if k.startswith(b"sparsemill.")}
    table = change(file.read())
    pq.write_table(table.replace_schema_metadata(footer), path)
    if renew:
        plan = FeatureStore.open(str(store), partial=True).plan
        finish_store(str(store), [read_record(str(store), u) for u in range(len(plan.units))])


def set_list(column: str, row: int, values: list) -> Callable[[pa.Table], pa.Table]:
    """Replace one row's list."""

    def change(table: pa.Table) -> pa.Table:
        lists = table.column(column).to_pylist()
        lists[row] = values
        return set_column(table, column, lists)

    return change


def set_column(table: pa.Table, name: str, values: list) -> pa.Table:
    index, field = table.schema.get_field_index(name), table.schema.field(name)
    return table.set_column(index, field, pa.array(values, field.type))


def problem_of(store: Path, quick: bool = False) -> str:
    """The report's problems, one a line; there must be some."""
    report = verify_store(str(store), quick)
    assert not report.ok
    return "\n".join(report.problems)


def test_a_sound_store_has_no_problems_and_is_counted(store: Path) -> None:
    report = verify_store(str(store))
    assert report.ok and report.problems == ()
    status = FeatureStore.open(str(store)).status()
    assert (report.parts, report.rows, report.errors) == (3, 24, status.errors)
    assert (report.tokens, report.bytes) == (status.tokens, status.bytes)
    assert FeatureStore.open(str(store)).verify(quick=True).ok


@pytest.mark.parametrize("at", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_flipped_byte_anywhere_is_found(store: Path, at: float) -> None:
    path = part_file(store, 1)
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0x10
    path.write_bytes(data)
    assert "parts/part-000001.parquet: its sha256 is not the one in manifest.json" in problem_of(store)


def test_a_flipped_byte_is_found_by_its_page_even_without_a_manifest(store: Path) -> None:
    path = part_file(store, 1)
    column = pq.read_metadata(path).row_group(0).column(9)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    path.write_bytes(data)
    (store / "manifest.json").unlink()
    assert "parts/part-000001.parquet, row group 0: cannot be read" in problem_of(store)


@pytest.mark.parametrize("quick", [True, False])
def test_a_truncated_part_is_found(store: Path, quick: bool) -> None:
    path = part_file(store, 1)
    path.write_bytes(path.read_bytes()[:-100])
    found = problem_of(store, quick)
    assert "parts/part-000001.parquet: has " in found and "cannot be read as a part" in found


@pytest.mark.parametrize("quick", [True, False])
def test_a_missing_part_is_found(store: Path, quick: bool) -> None:
    part_file(store, 1).unlink()
    assert "parts/part-000001.parquet: is missing; rerun extract" in problem_of(store, quick)


@pytest.mark.parametrize("name", ["part-000003.parquet", "part-1.parquet", "copy of part-000001.parquet", "x.txt"])
def test_an_extra_file_among_the_parts_is_found(store: Path, name: str) -> None:
    shutil.copy(part_file(store, 1), store / "parts" / name)
    assert problem_of(store, quick=True) == f"parts/{name}: belongs to no unit of this store"


def test_what_a_killed_writer_left_is_no_problem(store: Path) -> None:
    (store / "parts/.part-000001.parquet.0a1b2c3d.tmp").write_bytes(b"PAR1")
    assert verify_store(str(store)).ok


@pytest.mark.parametrize("quick", [True, False])
def test_a_renamed_part_is_found(store: Path, quick: bool) -> None:
    part_file(store, 1).rename(part_file(store, 2))
    found = problem_of(store, quick)
    assert "part-000001.parquet: is missing" in found and "part-000002.parquet: holds unit 1" in found


@pytest.mark.parametrize("quick", [True, False])
def test_swapped_parts_are_found(store: Path, quick: bool) -> None:
    first, third = part_file(store, 0).read_bytes(), part_file(store, 2).read_bytes()
    part_file(store, 0).write_bytes(third)
    part_file(store, 2).write_bytes(first)
    found = problem_of(store, quick)
    assert "part-000000.parquet: holds unit 2" in found and "part-000002.parquet: holds unit 0" in found


def test_a_part_of_another_job_is_found(store: Path, tmp_path: Path) -> None:
    other = plan_of(SIZES, bundle="other")
    create_store(str(tmp_path / "other"), other)
    write_part(str(tmp_path / "other"), other, 1, random_rows(SCHEMA, 6, seed=1, prefix="u1"))
    shutil.copy(part_file(tmp_path / "other", 1), part_file(store, 1))
    assert "part-000001.parquet: carries the fingerprint of another job" in problem_of(store, quick=True)


@pytest.mark.parametrize("changes", [{"identity": {"bundle": "x"}}, {"rows": 24, "units": [[0, 9], [9, 24]]}])
def test_an_edit_of_what_decides_values_is_found(store: Path, changes: dict) -> None:
    edit_json(store / "store.json", **changes)
    assert "store.json: its contents do not give the fingerprint it records; it was edited" in problem_of(store)


def test_any_other_edit_of_store_json_is_found(store: Path) -> None:
    edit_json(store / "store.json", spec={"store": "elsewhere"})
    assert problem_of(store) == "store.json: is not the file that manifest.json recorded; it was edited"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": 25}, "manifest.json: 'rows' is not the sum over its parts"),
        ({"tokens": 0}, "manifest.json: 'tokens' is not the sum over its parts"),
        ({"fingerprint": "0" * 64}, "manifest.json: belongs to another job than store.json"),
        ({"store_sha256": "0" * 64}, "store.json: is not the file that manifest.json recorded"),
        ({"parts": []}, "manifest.json: does not list each of the 3 units once"),
        ({"parts": [{"unit": 0}]}, "manifest.json: is damaged"),
        ({"parts": None}, "manifest.json: is damaged"),
    ],
)
def test_an_edited_manifest_is_found(store: Path, changes: dict, said: str) -> None:
    edit_json(store / "manifest.json", **changes)
    assert said in problem_of(store)


def test_a_manifest_that_is_no_json_is_found(store: Path) -> None:
    (store / "manifest.json").write_text("{")
    assert "manifest.json: is damaged" in problem_of(store)


def test_a_store_that_is_not_finished_is_no_sound_store(store: Path) -> None:
    (store / "manifest.json").unlink()
    assert problem_of(store) == "manifest.json: is missing, so the store is not finished; rerun extract"


def rows_with_features(store: Path, unit: int, at_least: int = 2) -> int:
    lists = pq.read_table(part_file(store, unit)).column("l12_64__indices").to_pylist()
    return next(row for row, indices in enumerate(lists) if len(indices) >= at_least)


def test_hand_made_parquet_that_keeps_the_rules_is_sound(store: Path) -> None:
    rewrite(store, 0, lambda table: table)
    assert verify_store(str(store)).problems == ()


def test_an_unsorted_index_is_found_with_its_row(store: Path) -> None:
    row = rows_with_features(store, 0)
    indices = pq.read_table(part_file(store, 0)).column("l12_64__indices").to_pylist()[row]
    rewrite(store, 0, set_list("l12_64__indices", row, indices[::-1]))
    said = f"parts/part-000000.parquet, row group 0, row {row}: 'l12_64__indices' is not strictly increasing"
    assert said in problem_of(store)


def test_an_index_beyond_the_sae_is_found(store: Path) -> None:
    row = rows_with_features(store, 0)
    indices = pq.read_table(part_file(store, 0)).column("l12_64__indices").to_pylist()[row]
    rewrite(store, 0, set_list("l12_64__indices", row, [*indices[:-1], 64]))
    assert f"row {row}: 'l12_64__indices' holds 64, but d_sae is 64" in problem_of(store)


def test_lists_that_are_not_parallel_are_found(store: Path) -> None:
    row = rows_with_features(store, 0)
    values = pq.read_table(part_file(store, 0)).column("l12_64__sum").to_pylist()[row]
    rewrite(store, 0, set_list("l12_64__sum", row, values[:-1]))
    assert f"row {row}: 'l12_64__sum' is not as long as 'l12_64__indices'" in problem_of(store)
    with pytest.raises(StoreError, match="not as long as"):
        FeatureStore.open(str(store)).matrix("l12_64", "sum")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("l12_64__max", float("nan"), "holds nan, which is not finite"),
        ("l12_64__max", float("inf"), "holds inf, which is not finite"),
        ("l12_64__max", 0.0, "is 0 for a feature that is listed"),
        ("l12_64__sum", -2.0, "activations are not negative"),
        ("l12_64__max", 1.001, "has more than 8 significant bits"),
        ("l12_64__count", 1000, "more than n_tokens"),
    ],
)
def test_a_value_that_breaks_a_rule_is_found(store: Path, column: str, value: float, said: str) -> None:
    row = rows_with_features(store, 0)
    values = pq.read_table(part_file(store, 0)).column(column).to_pylist()[row]
    rewrite(store, 0, set_list(column, row, [value, *values[1:]]))
    found = problem_of(store)
    assert f"row {row}: '{column}'" in found and said in found


def test_features_of_a_failed_document_are_found(store: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        errors, tokens = table.column("error").to_pylist(), table.column("n_tokens").to_pylist()
        row = tokens.index(max(tokens))
        return set_column(table, "error", [*errors[:row], "failed", *errors[row + 1 :]])

    rewrite(store, 0, change)
    assert "has an error and yet n_tokens" in problem_of(store)


def test_counts_in_the_footer_that_the_rows_do_not_bear_out_are_found(store: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        tokens = table.column("n_tokens").to_pylist()
        return set_column(table, "n_tokens", [n + 1 if n else 0 for n in tokens])

    rewrite(store, 0, change)
    assert "parts/part-000000.parquet: its footer says" in problem_of(store)


@pytest.mark.parametrize("vector", [None, [1.0, float("nan"), 1.0]])
def test_a_dense_vector_that_is_missing_or_not_finite_is_found(store: Path, vector: list | None) -> None:
    row = rows_with_features(store, 0)
    rewrite(store, 0, set_list("resid_post_9__hidden_mean", row, vector))
    assert f"row {row}: 'resid_post_9__hidden_mean'" in problem_of(store)


def test_a_dense_vector_where_there_are_no_tokens_is_found(store: Path) -> None:
    row = pq.read_table(part_file(store, 0)).column("n_tokens").to_pylist().index(0)
    rewrite(store, 0, set_list("resid_post_9__hidden_mean", row, [1.0, 1.0, 1.0]))
    assert f"row {row}: 'resid_post_9__hidden_mean' must be null exactly where n_tokens is 0" in problem_of(store)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["label"]),
        lambda table: table.append_column("extra", pa.array([1] * len(table))),
        lambda table: table.select([1, 0, *range(2, table.num_columns)]),
        lambda table: table.set_column(2, "score", table.column("score").cast(pa.float32())),
    ],
    ids=["dropped", "added", "moved", "retyped"],
)
def test_columns_that_differ_from_the_schema_are_found(store: Path, change) -> None:
    rewrite(store, 0, change)
    assert "part-000000.parquet: has columns that differ from the store's schema" in problem_of(store, quick=True)


def test_a_lost_row_is_found(store: Path) -> None:
    rewrite(store, 0, lambda table: table.slice(1), renew=False)
    assert "part-000000.parquet: has 8 rows (footer: 9), but its unit has 9 documents" in problem_of(store, quick=True)


@pytest.mark.parametrize("other", [0, 2], ids=["same part", "another part"])
def test_an_id_that_occurs_twice_is_found_with_both_places(store: Path, other: int) -> None:
    def change(table: pa.Table) -> pa.Table:
        return set_column(table, "doc_id", [*table.column("doc_id").to_pylist()[:-1], "u0-0"])

    rewrite(store, other, change)
    last = SIZES[other] - 1
    assert problem_of(store) == (
        f"doc_id 'u0-0': occurs 2 times, in part-000000.parquet row 0 and part-{other:06d}.parquet row {last}"
    )


def test_problems_name_the_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "ROW_GROUP_BYTES", 600)
    write_store(tmp_path, (9,))
    path = part_file(tmp_path, 0)
    column = pq.read_metadata(path).row_group(2).column(9)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    path.write_bytes(data)
    assert "parts/part-000000.parquet, row group 2: cannot be read" in problem_of(tmp_path)


def test_every_problem_is_reported_and_not_only_the_first(store: Path) -> None:
    part_file(store, 0).unlink()
    part_file(store, 2).write_bytes(b"")
    edit_json(store / "manifest.json", rows=1)
    assert len(verify_store(str(store)).problems) >= 4


def test_what_is_no_store_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a feature store"):
        verify_store(str(tmp_path))


def test_a_part_that_reads_as_parquet_but_has_no_footer_of_ours_is_found(store: Path) -> None:
    pq.write_table(pa.table({"x": np.arange(9)}), part_file(store, 0))
    assert "part-000000.parquet: cannot be read as a part (its footer has no valid 'sparsemill.unit')" in problem_of(
        store
    )


FLIPS = 500


def flipped(data: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    at, bit = int(rng.integers(len(data))), int(rng.integers(8))
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@pytest.mark.slow
def test_five_hundred_flipped_bits_are_each_found(store: Path) -> None:
    sound = part_file(store, 1).read_bytes()
    for seed in range(FLIPS):
        part_file(store, 1).write_bytes(flipped(sound, seed))
        assert "part-000001.parquet: its sha256 is not the one in manifest.json" in problem_of(store)


def test_a_flipped_bit_in_a_part_that_no_manifest_vouches_for_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """While a store is written, a part has only its own checksums; what they do not cover must not reach a reader."""
    plan = plan_of((9,))
    create_store(str(tmp_path), plan)
    write_part(str(tmp_path), plan, 0, random_rows(SCHEMA, 9))
    sound, expected = part_file(tmp_path, 0).read_bytes(), pq.read_table(part_file(tmp_path, 0))
    missing = verify_store(str(tmp_path)).problems
    harmless = 0
    for seed in range(FLIPS):
        part_file(tmp_path, 0).write_bytes(flipped(sound, seed))
        if verify_store(str(tmp_path)).problems == missing:
            assert pq.read_table(part_file(tmp_path, 0)).equals(expected)
            harmless += 1
    assert harmless < FLIPS / 2  # most bytes are covered; the rest is names and sizes that nobody reads again


def test_statistics_that_would_make_a_reader_skip_a_row_are_found(tmp_path: Path) -> None:
    plan = plan_of((9,))
    create_store(str(tmp_path), plan)
    write_part(str(tmp_path), plan, 0, random_rows(SCHEMA, 9))
    data = part_file(tmp_path, 0).read_bytes()
    footer = data.rindex(b"doc-8")  # the largest id, as the footer's statistics have it
    part_file(tmp_path, 0).write_bytes(data[:footer] + b"doc-5" + data[footer + 5 :])
    assert "row group 0, 'doc_id' holds 'doc-0' to 'doc-8', beyond its statistics" in problem_of(tmp_path)


def test_names_among_the_parts_that_would_steer_a_terminal_are_shown_tame(store: Path) -> None:
    (store / "parts" / "\x1b[31m\nok").write_bytes(b"")
    assert problem_of(store) == r"parts/\x1b[31m\nok: belongs to no unit of this store"
