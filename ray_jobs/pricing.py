"""Figures for a plan: tokens, bytes, and hours and money where a rate is known.

Nothing is guessed twice: what parts are there already tells the bytes of the rest, and the last run of the same
bundle on this machine tells its speed. Without such a run there is no figure for hours, unless the user gives a rate.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.cache import cache_path

if TYPE_CHECKING:
    from ray_jobs.plan import JobPlan

# Store size before anything was extracted. Of the features that a document's tokens switch on, many are the same ones:
# about half as many differ as would if tokens chose at random (HateCheck, 4,096 wide: 460 to 760 of 1,055).
TYPICAL_L0 = 64
DISTINCT_SHARE = 0.5
BITS_OF_INDEX_AND_VALUE, BITS_OF_FURTHER_VALUE = 15.5, 10.0  # of one non-zero, at 8 significant bits
BYTES_OF_DENSE_VALUE = 3.8  # float32 that compresses a little
BYTES_OF_ROW = 30.0  # id and counts


@dataclass(frozen=True)
class Estimate:
    """What a run will take, as far as it is known.

    Attributes:
        documents: Exact.
        tokens: Pooled tokens of all documents, from the sample.
        units: Exact.
        missing_units: Units still to do.
        missing_tokens: Tokens in them.
        bytes_out: Size of the finished store.
        bytes_measured: Whether that size is extrapolated from parts that are there, and not from typical figures.
        tokens_per_second: Of one worker, if known.
        rate_source: Where that rate comes from.
        worker_hours: For the missing units, if the rate is known.
        cost: For the missing units, if rate and price are known.
    """

    documents: int
    tokens: int
    units: int
    missing_units: int
    missing_tokens: int
    bytes_out: int
    bytes_measured: bool
    tokens_per_second: float | None
    rate_source: str | None
    worker_hours: float | None
    cost: float | None


def estimate(plan: JobPlan, rate: float | None = None, price: float | None = None) -> Estimate:
    """Put figures on a plan.

    Args:
        plan: The plan.
        rate: Tokens a second of one worker; the rate that this machine measured on its last run where not given.
        price: Money for an hour of one worker.
    """
    documents = plan.scan.rows
    missing = plan.missing
    missing_documents = sum(unit.stop - unit.start for unit in missing)
    missing_tokens = round(plan.mean_tokens * missing_documents)
    done = documents - missing_documents
    if done:
        per_document = sum(plan.committed[unit.index] for unit in plan.units if unit.index in plan.committed) / done
    else:
        per_document = _typical_bytes(plan)
    source = None
    if rate is not None:
        source = "as given"
    elif (known := _rates().get(rate_key(plan))) is not None:
        rate, source = known["tokens_per_second"], f"measured here on {known['date']}"
    hours = missing_tokens / rate / 3600 if rate else None
    return Estimate(
        documents=documents,
        tokens=round(plan.mean_tokens * documents),
        units=len(plan.units),
        missing_units=len(missing),
        missing_tokens=missing_tokens,
        bytes_out=round(per_document * documents),
        bytes_measured=done > 0,
        tokens_per_second=rate,
        rate_source=source,
        worker_hours=hours,
        cost=hours * price if hours is not None and price is not None else None,
    )


def rate_key(plan: JobPlan) -> str:
    """What a measured rate belongs to: this bundle, on this kind of hardware, with these settings."""
    compute = plan.compute
    return f"{plan.bundle.sha256[:16]}/{compute.device}/{compute.threads}/{'+'.join(plan.job.pool)}"


def remember_rate(plan: JobPlan, tokens_per_second: float) -> None:
    """Keep the rate of one worker for later plans; a cache that cannot be written is no reason to fail."""
    rates = {
        **_rates(),
        rate_key(plan): {"tokens_per_second": tokens_per_second, "date": f"{datetime.now(UTC):%Y-%m-%d}"},
    }
    path = _rates_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(rates, indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError:
        return


def _rates() -> dict[str, Any]:
    try:
        rates = json.loads(_rates_path().read_text(encoding="utf-8"))
        return {key: value for key, value in rates.items() if value["tokens_per_second"] > 0 and value["date"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _rates_path() -> Path:
    return cache_path("rates.json")


def _typical_bytes(plan: JobPlan) -> float:
    further = len(plan.job.pool) - 1
    bits = BITS_OF_INDEX_AND_VALUE + BITS_OF_FURTHER_VALUE * further
    total = BYTES_OF_ROW + BYTES_OF_DENSE_VALUE * plan.bundle.d_model * len(plan.store.schema.dense)
    for sae in plan.bundle.saes:
        by_chance = sae.d_sae * -math.expm1(-plan.mean_tokens * min(TYPICAL_L0, sae.d_sae) / sae.d_sae)
        total += DISTINCT_SHARE * by_chance * bits / 8
    return total
