"""Documents at fault are found by halving, whatever they do, and none is blamed for bad luck."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.run.document_search import DIED, DocumentRange, DocumentSearches, UnitSearch
from ray_jobs.run.failure_policy import MAX_DEATHS, MAX_ERRORS


def run(search: UnitSearch, raising: set[int], deadly: set[int]) -> int:
    """Try ranges as a worker would; how many documents that took."""
    computed = 0
    while (span := search.next) is not None:
        documents = set(range(*span)) - search.blamed.keys()
        computed += len(documents)
        if documents & deadly:
            search.failed(None)
        elif documents & raising:
            search.failed("ValueError: poisoned")
        else:
            search.passed()
    return computed


@settings(max_examples=100)
@given(rows=st.integers(1, 200), data=st.data())
def test_exactly_the_documents_at_fault_are_found(rows: int, data: st.DataObject) -> None:
    documents = st.sets(st.integers(0, rows - 1), max_size=6)
    raising, deadly = data.draw(documents), data.draw(documents)
    search = UnitSearch(rows)
    run(search, raising, deadly)
    assert search.blamed.keys() == raising | deadly
    assert search.found == len(raising | deadly)
    assert all(search.blamed[document] == DIED for document in deadly)
    assert all("ValueError: poisoned" in search.blamed[document] for document in raising - deadly)


def test_one_document_of_a_thousand_costs_little_more_than_the_unit_twice() -> None:
    assert run(UnitSearch(1000), {613}, set()) < 2.1 * 1000


def test_a_document_is_not_blamed_for_one_death_or_one_error() -> None:
    search = UnitSearch(1)
    for _ in range(MAX_DEATHS - 1):
        search.failed(None)
    for _ in range(MAX_ERRORS - 1):
        search.failed("OSError: odd")
    search.passed()
    assert search.next is None
    assert search.blamed == {}


def test_a_second_search_keeps_what_the_first_found() -> None:
    search = UnitSearch(8, {3: "known"})
    run(search, {3, 5}, set())
    assert search.blamed.keys() == {3, 5}
    assert (search.blamed[3], search.found) == ("known", 1)


def found_by(searches: DocumentSearches, unit: int, guilty: set[int]) -> int:
    """Search to the end with documents that raise; how many were found."""
    while True:
        tried = searches.next_range([])
        assert tried is not None
        assert tried.unit == unit
        bad = guilty & set(range(tried.start, tried.stop)) - tried.blamed.keys()
        found = searches.failed(unit, "raised") if bad else searches.passed(unit)
        if found is not None:
            return found


def test_a_search_ends_with_the_documents_at_fault() -> None:
    searches = DocumentSearches()
    searches.begin(4, rows=10)
    assert 4 in searches
    assert found_by(searches, 4, {3, 8}) == 2
    assert 4 not in searches
    assert set(searches.blamed(4)) == {3, 8}
    assert not searches.was_in_vain(4)


def test_a_search_that_finds_nothing_was_in_vain() -> None:
    searches = DocumentSearches()
    searches.begin(4, rows=10)
    assert found_by(searches, 4, set()) == 0
    assert searches.was_in_vain(4)
    assert searches.blamed(4) == {}


def test_a_second_search_begins_with_what_the_first_one_found() -> None:
    searches = DocumentSearches()
    searches.begin(4, rows=4)
    assert found_by(searches, 4, {1}) == 1
    searches.begin(4, rows=4)
    assert searches.next_range([]) == DocumentRange(4, 0, 2, searches.blamed(4))
    assert found_by(searches, 4, {1, 2}) == 1
    assert set(searches.blamed(4)) == {1, 2}


def test_units_are_searched_side_by_side_and_each_by_one_worker() -> None:
    searches = DocumentSearches()
    assert searches.next_range([]) is None
    searches.begin(4, rows=2)
    searches.begin(9, rows=2)
    first = searches.next_range([])
    assert first is not None
    second = searches.next_range([first.unit])
    assert second is not None
    assert {first.unit, second.unit} == {4, 9}
    assert searches.next_range([4, 9]) is None
    assert MAX_ERRORS > 1  # one failure of a document alone blames nobody yet
    searches.failed(4, "raised")
    searches.failed(4, "raised")
    assert searches.blamed(4) == {}


def test_a_document_that_fails_though_it_is_left_out_ends_the_search_in_vain() -> None:
    searches = DocumentSearches()
    searches.begin(3, 1)
    for _ in range(MAX_ERRORS):
        span = searches.next_range(())
        assert span is not None and not searches.was_in_vain(3)
        searches.failed(3, "ValueError: poisoned")
    searches.begin(3, 1)  # the unit without it fails all the same
    for _ in range(MAX_ERRORS):
        searches.failed(3, "ValueError: poisoned")
    assert searches.was_in_vain(3) and searches.next_range(()) is None
