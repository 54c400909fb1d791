"""Find ids that are used twice, in eight bytes of memory for each id.

Ids are kept as 64-bit hashes. Equal hashes alone prove nothing, so a second pass over the ids compares the ids that
have them. A corpus without duplicates is therefore read once, and two ids that merely share a hash are not refused.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from featurestore.errors import CorpusError

_SHOWN = 3
_MAX_COMPARED = (
    10_000  # repeated hashes: a few are enough, and bound the ids in memory when a whole file is there twice
)


class UniqueIds:
    """Collects ids, then says whether all differ: `add` each; if any are `repeated`, `confirm` with all again."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._repeated: frozenset[int] = frozenset()

    def add(self, doc_id: str) -> None:
        self._hashes.append(hash(doc_id))

    def repeated(self) -> int:
        """How many hashes occur more than once."""
        import numpy as np

        hashes = np.sort(np.frombuffer(self._hashes, dtype=np.int64))
        twice = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        self._repeated = frozenset(twice[:_MAX_COMPARED].tolist())
        return len(twice)

    def confirm(self, ids: Iterable[tuple[str, str]]) -> None:
        """Go through all ids again, as (id, place), in corpus order.

        Raises:
            CorpusError: Some id is used twice; the first few are named with their places.
        """
        places: dict[str, str] = {}
        twice: list[str] = []
        for doc_id, place in ids:
            if hash(doc_id) not in self._repeated:
                continue
            if doc_id in places:
                shown = doc_id if len(doc_id) <= 60 else f"{doc_id[:57]}..."
                twice.append(f"'{shown}' in {places[doc_id]} and {place}")
                if len(twice) == _SHOWN:
                    break
            places.setdefault(doc_id, place)
        if twice:
            raise CorpusError(
                f"ids must be unique, but there is {', '.join(twice)} (file:row, from 0);"
                " correct them, name another column in corpus.id, or leave it out"
            )
