"""The searches of a run."""

from __future__ import annotations

from ray_jobs.run.quarantine import Probe, Suspects
from ray_jobs.run.unit_queue import MAX_ERRORS


def found_by(suspects: Suspects, unit: int, guilty: set[int]) -> int:
    """Search to the end with documents that raise; how many were found."""
    while True:
        probe = suspects.next_probe([])
        assert probe is not None
        assert probe.unit == unit
        bad = guilty & set(range(probe.start, probe.stop)) - probe.blamed.keys()
        found = suspects.failed(unit, "raised") if bad else suspects.passed(unit)
        if found is not None:
            return found


def test_a_search_ends_with_the_documents_at_fault() -> None:
    suspects = Suspects()
    suspects.add(4, rows=10)
    assert 4 in suspects
    assert found_by(suspects, 4, {3, 8}) == 2
    assert 4 not in suspects
    assert set(suspects.blamed(4)) == {3, 8}
    assert not suspects.is_in_vain(4)


def test_a_search_that_finds_nothing_was_in_vain() -> None:
    suspects = Suspects()
    suspects.add(4, rows=10)
    assert found_by(suspects, 4, set()) == 0
    assert suspects.is_in_vain(4)
    assert suspects.blamed(4) == {}


def test_a_second_search_begins_with_what_the_first_one_found() -> None:
    suspects = Suspects()
    suspects.add(4, rows=4)
    assert found_by(suspects, 4, {1}) == 1
    suspects.add(4, rows=4)
    assert suspects.next_probe([]) == Probe(4, 0, 2, suspects.blamed(4))
    assert found_by(suspects, 4, {1, 2}) == 1
    assert set(suspects.blamed(4)) == {1, 2}


def test_units_are_searched_side_by_side_and_each_by_one_worker() -> None:
    suspects = Suspects()
    assert suspects.next_probe([]) is None
    suspects.add(4, rows=2)
    suspects.add(9, rows=2)
    first = suspects.next_probe([])
    assert first is not None
    second = suspects.next_probe([first.unit])
    assert second is not None
    assert {first.unit, second.unit} == {4, 9}
    assert suspects.next_probe([4, 9]) is None
    assert MAX_ERRORS > 1  # one failure of a document alone blames nobody yet
    suspects.failed(4, "raised")
    suspects.failed(4, "raised")
    assert suspects.blamed(4) == {}
