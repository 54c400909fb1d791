"""Remember the rates that runs and calibrations reached, so that later plans on the same machine can use them.

A rate belongs to a bundle with its settings and to a place: a machine and what it computes on. What another place
reached (a node of a cluster, another machine that shares this cache) is never taken for this one's; a plan only
mentions it.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.base.json_text import json_text
from featurestore.storage.cache import cache_path
from ray_jobs.planning.identity import cpu_name

if TYPE_CHECKING:
    from ray_jobs.planning.job_plan import JobPlan


@dataclass(frozen=True)
class Place:
    """Where work was done.

    Attributes:
        host: Name of the machine.
        hardware: Its processor, or the GPU that did the work.
    """

    host: str
    hardware: str

    def __str__(self) -> str:
        return f"{self.host}, {self.hardware}" if self.hardware else self.host


@dataclass(frozen=True)
class MeasuredRate:
    """What one worker reached.

    Attributes:
        tokens_per_second: Of one worker.
        date: When.
        place: Where.
    """

    tokens_per_second: float
    date: str
    place: Place


def place_here(device: str) -> Place:
    """This machine, as a worker on this device sees it; without torch a GPU's name is not known."""
    return Place(platform.node(), cpu_name() if device == "cpu" else _gpu_name())


def rate_key(plan: JobPlan) -> str:
    """What a measured rate belongs to besides its place: this bundle, with these settings."""
    compute = plan.compute
    return f"{plan.bundle.sha256[:16]}/{compute.device}/{compute.threads}/{'+'.join(plan.job.pool)}"


def remember_rates(plan: JobPlan, rates: Mapping[Place, float]) -> None:
    """Keep rates of one worker for later plans; a cache that cannot be written is no reason to fail."""
    known = _known()
    here = place_here(plan.compute.device)
    for place, tokens_per_second in rates.items():
        # of places that are not here one of a kind is enough: a cluster has a thousand nodes
        owner = place.host if place == here else "elsewhere"
        rate = MeasuredRate(tokens_per_second, f"{datetime.now(UTC):%Y-%m-%d}", place)
        known[f"{rate_key(plan)}/{place.hardware}/{owner}"] = rate
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json_text({key: asdict(rate) for key, rate in known.items()}, indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError:
        return


def measured_rates(plan: JobPlan) -> tuple[MeasuredRate | None, MeasuredRate | None]:
    """What was last measured here for a plan, and what elsewhere."""
    fitting = [rate for key, rate in _known().items() if key.startswith(f"{rate_key(plan)}/")]
    if not fitting:
        return None, None
    here = place_here(plan.compute.device)
    ours = [rate for rate in fitting if rate.place == here]
    others = [rate for rate in fitting if rate.place != here]
    return max(ours, key=_date, default=None), max(others, key=_date, default=None)


def _date(rate: MeasuredRate) -> str:
    return rate.date


def _known() -> dict[str, MeasuredRate]:
    """Key -> rate; entries that do not say where they were measured say nothing."""
    try:
        entries = dict(json.loads(_path().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
    found = {}
    for key, entry in entries.items():
        try:
            place = Place(str(entry["place"]["host"]), str(entry["place"]["hardware"]))
            rate = MeasuredRate(float(entry["tokens_per_second"]), str(entry["date"]), place)
        except (KeyError, TypeError, ValueError):
            continue
        if rate.tokens_per_second > 0:
            found[key] = rate
    return found


def _path() -> Path:
    return cache_path("rates.json")


def _gpu_name() -> str:
    try:
        import torch
    except ModuleNotFoundError:
        return ""
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else ""
