"""Cutting the corpus into units."""

from __future__ import annotations

import pickle
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.corpus.scanned import MARK_ROWS, CorpusFile, CorpusScan
from ray_jobs.planning.units import UNIT_TOKENS, plan_units


def scanned(*rows: int, mean_text_bytes: float = 1000.0) -> CorpusScan:
    files = tuple(
        CorpusFile(
            "/r", f"/r/{i}", f"{i}", "jsonl", None, 1, None, "", n, (), array("q", range(0, n * 10, MARK_ROWS * 10))
        )
        for i, n in enumerate(rows)
    )
    return CorpusScan(files, sum(rows), {}, (), (), mean_text_bytes)


sizes = st.lists(st.integers(0, 3000), min_size=1, max_size=8).filter(any)


@settings(max_examples=50)
@given(sizes, st.none() | st.integers(1, 500), st.floats(0, 1e6), st.sampled_from(["cpu", "cuda"]))
def test_units_cover_every_row_of_every_file_once_and_in_order(
    rows: list[int], size: int | None, mean_tokens: float, device: str
) -> None:
    units = plan_units(scanned(*rows), size, mean_tokens, device)
    covered = [
        (part.file.name, row)
        for unit in units
        for part in unit.slices
        for row in range(part.first_row, part.first_row + part.n_rows)
    ]
    assert covered == [(str(i), row) for i, n in enumerate(rows) for row in range(n)]
    assert [unit.index for unit in units] == list(range(len(units)))
    assert units[0].start == 0
    assert units[-1].stop == sum(rows)
    assert all(unit.rows == sum(part.n_rows for part in unit.slices) > 0 for unit in units)


@settings(max_examples=50)
@given(sizes, st.integers(1, 500))
def test_a_slice_begins_at_the_nearest_mark_before_its_rows(rows: list[int], size: int) -> None:
    for unit in plan_units(scanned(*rows), size, 100.0):
        for part in unit.slices:
            assert part.mark_row <= part.first_row < part.mark_row + MARK_ROWS
            assert part.mark_offset == part.mark_row * 10
            last = part.first_row + part.n_rows
            assert part.end_offset is None or last * 10 <= part.end_offset < (last + MARK_ROWS) * 10


def test_a_fixed_size_is_obeyed_and_the_last_unit_takes_the_rest() -> None:
    assert [unit.rows for unit in plan_units(scanned(25), 10, 100.0)] == [10, 10, 5]


def test_units_of_a_large_corpus_are_even_and_worth_the_tokens_of_the_device() -> None:
    for device, tokens in UNIT_TOKENS.items():
        rows = [unit.rows for unit in plan_units(scanned(1_000_000), None, 500.0, device)]
        assert max(rows) - min(rows) <= 1
        assert max(rows) * 500 == pytest.approx(tokens, rel=0.01)


def test_a_small_corpus_still_gives_work_to_several_workers() -> None:
    assert len(plan_units(scanned(512), None, 10.0)) == 16
    assert len(plan_units(scanned(3728), None, 25.0, "cuda")) == 32
    assert len(plan_units(scanned(181), None, 50.0)) == 6
    assert len(plan_units(scanned(33), None, 50.0)) == 2
    assert len(plan_units(scanned(32), None, 10.0)) == 1


def test_a_unit_has_at_least_32_documents_unless_they_are_huge() -> None:
    assert max(unit.rows for unit in plan_units(scanned(10_000), None, 8_192.0)) == 32
    assert max(unit.rows for unit in plan_units(scanned(10_000), None, 100_000.0)) == 5
    assert max(unit.rows for unit in plan_units(scanned(10_000), None, 1e9)) == 1


def test_a_unit_never_holds_more_text_than_a_worker_can() -> None:
    long = scanned(100_000, mean_text_bytes=2**20)
    assert max(unit.rows for unit in plan_units(long, None, 1024.0, "cuda")) <= 256


def test_units_travel_to_workers_as_small_plain_data() -> None:
    units = plan_units(scanned(100_000), None, 500.0)
    assert pickle.loads(pickle.dumps(units)) == units
    assert len(pickle.dumps(units[-1])) < 1000
