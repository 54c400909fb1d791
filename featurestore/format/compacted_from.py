"""Record in a compacted store which store it was made from, and check that record.

The store's identity holds the fingerprint and units of its origin, so that the old fingerprint can be computed again
from the new store.json alone. Merging parts is left to `convert.compact`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from featurestore.errors import StoreError
from featurestore.format.store_plan import StorePlan

ORIGIN = "origin"


def compacted_plan(plan: StorePlan, runs: Sequence[range]) -> StorePlan:
    """The plan of the store whose unit i is the units `runs[i]` of `plan`."""
    units = [(plan.units[run.start][0], plan.units[run.stop - 1][1]) for run in runs]
    origin = {"fingerprint": plan.fingerprint, "units": [list(unit) for unit in plan.units]}
    return replace(plan, identity={**plan.identity, ORIGIN: origin}, units=units)


def origin_problem(plan: StorePlan) -> str | None:
    """Why a compacted store cannot come from where it says; None if it can, or is no compacted store."""
    origin = plan.identity.get(ORIGIN)
    if origin is None:
        return None
    try:
        return _origin_problem(plan, origin)
    except (KeyError, TypeError, ValueError, StoreError) as exc:
        return f"its 'origin' is damaged ({exc})"


def _origin_problem(plan: StorePlan, origin: Any) -> str | None:
    units = [(int(start), int(stop)) for start, stop in origin["units"]]
    identity = {key: value for key, value in plan.identity.items() if key != ORIGIN}
    before = replace(plan, identity=identity, units=units)
    if before.fingerprint != origin["fingerprint"]:
        return "its 'origin' does not give the fingerprint that it records"
    starts = {start for start, _ in units}
    if not all(start in starts for start, _ in plan.units):
        return "its units are no runs of its origin's units"
    return None
