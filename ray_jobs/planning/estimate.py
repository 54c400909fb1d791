"""Put figures on a plan: tokens, bytes, and hours and money where a rate is known.

What is known is not guessed: parts that are there tell the bytes of the rest, and the last run or calibration of the
same bundle on this machine tells its speed. A kind of hardware named from the rates file gives speed and price for a
machine that is not here. With neither, there is no figure for hours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.errors import JobSpecError
from ray_jobs.planning.hardware import fed_of, gflop_per_token, load_rates
from ray_jobs.planning.measured import MeasuredRate, measured_rates

if TYPE_CHECKING:
    from ray_jobs.backbone.bundle import SaeInfo
    from ray_jobs.planning.job_plan import JobPlan

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
        gflop_per_token: Operations of a pooled token, in billions, with its share of what is fed and not pooled.
        tokens_per_second: Of one worker, if known.
        rate_source: Where that rate comes from.
        worker_hours: For the missing units, if the rate is known.
        wall_hours: The same with as many workers as the job allows, if it says; start-up left out.
        price_per_hour: Of one worker, if known.
        cost: For the missing units, if rate and price are known.
        currency: Of the price, if it comes from the rates file.
        hardware: The kind of hardware that was priced, if one was named.
        memory_gb: Memory of that hardware's device, if the rates file knows it.
        rate_elsewhere: Where no rate is known for this machine: what another one reached.
    """

    documents: int
    tokens: int
    units: int
    missing_units: int
    missing_tokens: int
    bytes_out: int
    bytes_measured: bool
    gflop_per_token: float
    tokens_per_second: float | None
    rate_source: str | None
    worker_hours: float | None
    wall_hours: float | None
    price_per_hour: float | None
    cost: float | None
    currency: str | None
    hardware: str | None
    memory_gb: float | None
    rate_elsewhere: MeasuredRate | None


@dataclass(frozen=True)
class Price:
    """What one worker does in a second and costs an hour, as far as it is known, and who says so."""

    tokens_per_second: float | None
    source: str | None
    per_hour: float | None
    currency: str | None
    hardware: str | None
    memory_gb: float | None
    elsewhere: MeasuredRate | None


def estimate(
    plan: JobPlan,
    rate: float | None = None,
    price: float | None = None,
    hardware: str | None = None,
    rates_file: str | None = None,
) -> Estimate:
    """Put figures on a plan.

    Args:
        plan: The plan.
        rate: Tokens a second of one worker; that of the hardware named, else what this machine measured, if not given.
        price: Money for an hour of one worker; that of the hardware named where not given.
        hardware: A kind in the rates file; `workers.hardware` of the job where not given.
        rates_file: A rates file; `workers.rates` of the job, else the shipped one.

    Raises:
        JobSpecError: The rates file cannot be used or does not have that kind.
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
    gflop = gflop_per_token(plan.bundle, plan.mean_tokens, fed_of(plan))
    worker = _price(plan, rate, price, hardware, rates_file, gflop)
    hours = missing_tokens / worker.tokens_per_second / 3600 if worker.tokens_per_second else None
    workers = min(plan.job.workers.max, max(len(missing), 1)) if plan.job.workers.max else None
    return Estimate(
        documents=documents,
        tokens=round(plan.mean_tokens * documents),
        units=len(plan.units),
        missing_units=len(missing),
        missing_tokens=missing_tokens,
        bytes_out=round(per_document * documents),
        bytes_measured=done > 0,
        gflop_per_token=gflop,
        tokens_per_second=worker.tokens_per_second,
        rate_source=worker.source,
        worker_hours=hours,
        wall_hours=hours / workers if hours is not None and workers else None,
        price_per_hour=worker.per_hour,
        cost=hours * worker.per_hour if hours is not None and worker.per_hour is not None else None,
        currency=worker.currency,
        hardware=worker.hardware,
        memory_gb=worker.memory_gb,
        rate_elsewhere=worker.elsewhere,
    )


def _price(
    plan: JobPlan, rate: float | None, price: float | None, hardware: str | None, rates_file: str | None, gflop: float
) -> Price:
    """What is known of one worker: what was said, else the kind of hardware, else what was measured here."""
    name = hardware or plan.job.workers.hardware
    source = "as given" if rate is not None else None
    currency = memory_gb = elsewhere = None
    if name is not None:
        path = rates_file or plan.job.workers.rates
        rates = load_rates(path)
        kind = rates.kind(name, path or "the shipped rates file")
        if kind.device != ("cpu" if plan.compute.device == "cpu" else "gpu"):
            fits, other = ("workers.gpus: 1", "on CPUs") if kind.device == "gpu" else ("workers.gpus: 0", "on GPUs")
            is_open = plan.job.workers.gpus is None  # a job that leaves it open is planned for what is priced
            raise JobSpecError(
                f"hardware '{name}' is a {kind.device.upper()}, but "
                + (
                    f"the store was begun {other}: give another store"
                    if is_open
                    else f"the job runs {other}: set {fits} in it"
                )
            )
        devices, memory_gb = _devices_each(plan), kind.memory_gb
        if rate is None:
            share = (
                min(devices, 1.0) if plan.compute.device != "cpu" else devices
            )  # several GPUs hold one model's layers
            rate, source = kind.rate(gflop) * share, f"{name} in the rates file"
        if price is None:
            price, currency = kind.per_hour * devices, rates.currency
    elif rate is None:
        here, elsewhere = measured_rates(plan)
        if here is not None:
            rate, source, elsewhere = here.tokens_per_second, f"measured here ({here.place}) on {here.date}", None
    return Price(rate, source, price, currency, name, memory_gb, elsewhere)


def _devices_each(plan: JobPlan) -> float:
    """GPUs of one worker, or the cores of one without."""
    if plan.compute.device == "cpu":
        return float(plan.compute.threads)
    return plan.job.workers.gpus if plan.job.workers.gpus is not None else 1.0


def _typical_bytes(plan: JobPlan) -> float:
    further = len(plan.job.pool) - 1
    bits = BITS_OF_INDEX_AND_VALUE + BITS_OF_FURTHER_VALUE * further
    total = BYTES_OF_ROW + BYTES_OF_DENSE_VALUE * plan.bundle.d_model * len(plan.store.schema.dense)
    return total + sum(typical_nonzeros(sae, plan.mean_tokens) * bits / 8 for sae in plan.bundle.saes)


def typical_nonzeros(sae: SaeInfo, mean_tokens: float) -> float:
    """Features of an SAE that a document of so many tokens switches on."""
    by_chance = sae.d_sae * -math.expm1(-mean_tokens * min(TYPICAL_L0, sae.d_sae) / sae.d_sae)
    return DISTINCT_SHARE * by_chance
