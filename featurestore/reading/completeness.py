"""Count how much of an open store is there: by its manifest, or by every part's footer while it is being written.

Runs, errors by kind and rates are left to `featurestore.status`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featurestore.errors import StoreError
from featurestore.format.part import READ_ERRORS, open_part, part_path, read_footer, unreadable
from featurestore.format.store_plan import open_root
from featurestore.storage.files import shown

if TYPE_CHECKING:
    from featurestore.reading.open_store import OpenStore

_AT_ONCE = 8


@dataclass(frozen=True)
class StoreStatus:
    """How far a store is.

    Attributes:
        units_done: Parts committed.
        units: Of so many.
        rows_done: Documents in those committed.
        rows: Of so many.
        errors: Documents with an error, in those committed.
        tokens: In those committed.
        bytes: Of those committed.
        complete: Whether the store has its manifest.
    """

    units_done: int
    units: int
    rows_done: int
    rows: int
    errors: int
    tokens: int
    bytes: int
    complete: bool


def store_status(store: OpenStore, manifest: Mapping[str, Any] | None) -> StoreStatus:
    """How far an open store is; from its manifest if it is complete, else from every part's footer.

    Raises:
        StoreError: The manifest is damaged, or a part cannot be read.
    """
    if store.complete and manifest is not None:
        try:
            errors, tokens = int(manifest["errors"]), int(manifest["tokens"])
        except (KeyError, TypeError, ValueError) as exc:
            raise StoreError(f"{shown(store.uri)}: its manifest lacks its totals; delete it and rerun extract") from exc
    else:
        errors, tokens = map(sum, zip((0, 0), *footers(store.uri, store.units), strict=True))
    size = sum(store.part_bytes(unit) for unit in store.units)
    done, units = len(store.units), len(store.plan.units)
    return StoreStatus(done, units, len(store), store.plan.rows, errors, tokens, size, store.complete)


def footers(uri: str, units: Sequence[int]) -> list[tuple[int, int]]:
    """(errors, tokens) of parts."""
    fs, root = open_root(uri)

    def read(unit: int) -> tuple[int, int]:
        try:
            with open_part(fs, part_path(root, unit)) as file:
                footer = read_footer(file)
        except READ_ERRORS as exc:
            raise unreadable(uri, unit, exc) from exc
        return int(footer["errors"]), int(footer["tokens"])

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(read, units))
