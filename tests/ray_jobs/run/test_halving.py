"""Documents at fault are found by halving, whatever they do, and none is blamed for bad luck."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.run.halving import DIED, Search
from ray_jobs.run.unit_queue import MAX_DEATHS, MAX_ERRORS


def run(search: Search, raising: set[int], deadly: set[int]) -> int:
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


@settings(deadline=None, max_examples=100)
@given(rows=st.integers(1, 200), data=st.data())
def test_exactly_the_documents_at_fault_are_found(rows: int, data: st.DataObject) -> None:
    documents = st.sets(st.integers(0, rows - 1), max_size=6)
    raising, deadly = data.draw(documents), data.draw(documents)
    search = Search(rows)
    run(search, raising, deadly)
    assert search.blamed.keys() == raising | deadly
    assert search.found == len(raising | deadly)
    assert all(search.blamed[document] == DIED for document in deadly)
    assert all("ValueError: poisoned" in search.blamed[document] for document in raising - deadly)


def test_one_document_of_a_thousand_costs_little_more_than_the_unit_twice() -> None:
    assert run(Search(1000), {613}, set()) < 2.1 * 1000


def test_a_document_is_not_blamed_for_one_death_or_one_error() -> None:
    search = Search(1)
    for _ in range(MAX_DEATHS - 1):
        search.failed(None)
    for _ in range(MAX_ERRORS - 1):
        search.failed("OSError: odd")
    search.passed()
    assert search.next is None
    assert search.blamed == {}


def test_a_second_search_keeps_what_the_first_found() -> None:
    search = Search(8, {3: "known"})
    run(search, {3, 5}, set())
    assert search.blamed.keys() == {3, 5}
    assert (search.blamed[3], search.found) == ("known", 1)
