"""Which version wrote a store, by its two numbers, in words."""

from __future__ import annotations

from typing import Any

import pytest

from featurestore.format.schema import SaeColumns, StoreSchema
from featurestore.format.store_plan import StorePlan
from featurestore.tables import READING
from ray_jobs.engine import NUMERICS
from ray_jobs.planning.identity import deciding_software
from ray_jobs.planning.versions import other_version


def begun(software: Any) -> StorePlan:
    schema = StoreSchema((), (SaeColumns("tiny", 96, ("max",)),), ())
    return StorePlan(schema, {"software": software}, {}, [], 0, {})


def test_this_version_and_stores_of_others_are_no_other_version() -> None:
    assert other_version(begun(deciding_software())) is None
    assert other_version(begun(None)) is None
    assert other_version(begun({"torch": "2"})) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reading": None}, f"an earlier version, which reads corpora differently (reading 1, here {READING})"),
        (
            {"engine": str(NUMERICS - 1)},
            f"an earlier version, which computes features differently (engine {NUMERICS - 1}, here {NUMERICS})",
        ),
        (
            {"reading": "1", "engine": "1"},
            f"an earlier version, which reads corpora differently (reading 1, here {READING}) and "
            f"computes features differently (engine 1, here {NUMERICS})",
        ),
        (
            {"reading": str(READING + 1)},
            f"a later version, which reads corpora differently (reading {READING + 1}, here {READING})",
        ),
    ],
)
def test_another_version_is_named_by_what_it_does_differently(changes: dict[str, str | None], said: str) -> None:
    software = {key: value for key, value in {**deciding_software(), **changes}.items() if value is not None}
    assert other_version(begun(software)) == said
