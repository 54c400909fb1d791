"""Print what `prepare`, `plan` and `extract` found: lines for people, and the same as plain data for `--json`.

Nothing is computed here: figures come from `planning.estimate` and from the run. Sentences that warn are made in
`planning.warnings` and only broken into lines here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from featurestore.base.number_words import about, counted, money, size, span
from featurestore.base.terminal import print_facts, print_page
from ray_jobs.planning.memory import memory_of, sentence_of

if TYPE_CHECKING:
    from ray_jobs.backbone.bundle import Bundle
    from ray_jobs.planning.calibrate import Calibration
    from ray_jobs.planning.estimate import Estimate
    from ray_jobs.planning.job_plan import JobPlan
    from ray_jobs.run.outcome import ExtractResult


def print_bundle(bundle: Bundle) -> None:
    """What `prepare` says."""
    facts = bundle_facts(bundle)
    print(bundle.path)
    print_page(
        f"  model   {facts['model']}, layers 0 to {bundle.last_layer} of {bundle.model.n_layers}, {bundle.dtype}"
    )
    for sae in bundle.saes:
        noted = f"; allowed although {'; '.join(sae.mismatch)}" if sae.mismatch else ""
        unsure = f"; its metadata does not say its {', '.join(sae.unverified)}" if sae.unverified else ""
        print_page(f"  SAE     {sae.name}: {sae.hook}, {sae.d_sae:,} features, {sae.architecture}{noted}{unsure}")
        print_page(f"          sha256 {sae.sha256}")
    print_page(f"  bytes   {facts['bytes']:,}")
    print_page(f"  sha256  {bundle.sha256}")


def print_plan(made: JobPlan, figures: Estimate) -> None:
    """What `plan` says before its warnings."""
    print_facts(plan_lines(made, figures))


def plan_lines(made: JobPlan, figures: Estimate) -> Iterator[tuple[str, str]]:
    """What a plan comes to, as labels and lines."""
    from featurestore.storage.files import shown

    compute, scanned = made.compute, made.scan
    n_bytes = sum(file.size or 0 for file in scanned.files)
    yield "store", f"{shown(made.job.store)} ({_how_far(made)})"
    files = counted(len(scanned.files), "file")
    yield "corpus", f"{counted(figures.documents, 'document')} in {files}, {size(n_bytes)}"
    if scanned.reached_twice:
        name, first = scanned.reached_twice[0]
        more = f" (and {len(scanned.reached_twice) - 1:,} more reached twice)" if len(scanned.reached_twice) > 1 else ""
        yield "", f"{name} is {first} again, which is read once{more}"
    for dialect, names in _dialects(made).items():
        yield "csv", f"{dialect} ({names[0]}{f' and {len(names) - 1:,} more' if len(names) > 1 else ''})"
    sampled = counted(made.sample.documents, "sampled document")
    yield "tokens", f"about {figures.tokens:,} (mean {made.mean_tokens:,.1f} of {sampled})"
    yield "model", f"{made.bundle.model.name}, layers 0 to {made.bundle.last_layer}, {compute.dtype}"
    saes = ", ".join(f"{sae.name} ({sae.hook}, {sae.d_sae:,})" for sae in made.bundle.saes)
    yield "saes", f"{saes}; {', '.join(made.job.pool)}"
    yield "units", f"{figures.units:,} ({figures.missing_units:,} to do)"
    basis = "from the parts that are there" if figures.bytes_measured else "typical of such SAEs, a rough figure"
    yield "bytes out", f"{about(size(figures.bytes_out))} ({basis})"
    yield "workers", f"{compute.device}, {counted(compute.threads, 'thread')} each"
    memory = memory_of(made, figures)
    there = "" if memory.available is None else f"; {memory.place} has {size(memory.available)}"
    yield "memory", f"{sentence_of(memory)}{there}"
    if not made.missing and made.units:
        yield "hours", "nothing to do: every unit is there"
    elif figures.worker_hours is None:
        ways = "--calibrate measures it, --rate gives it, and --hardware takes it from the rates file"
        yield "hours", f"unknown: no rate measured here yet for this model; {ways}"
        if (other := figures.rate_elsewhere) is not None:
            reached = f"a worker reached {other.tokens_per_second:,.0f} tokens/s on {other.date}"
            yield "", f"elsewhere ({other.place}) {reached}; --rate {other.tokens_per_second:.0f} takes that"
    else:
        rate = f"{figures.tokens_per_second:,.0f} tokens/s a worker, {figures.rate_source}"
        yield "hours", f"{about(span(figures.worker_hours * 3600))} of one worker ({rate})"
    if figures.wall_hours is not None and made.missing:
        many = counted(made.job.workers.max or 1, "worker")
        yield "", f"{about(span(figures.wall_hours * 3600))} with {many}"
    if figures.cost is not None and made.missing:
        each = money(figures.price_per_hour or 0)
        yield "cost", f"{about(money(figures.cost, figures.currency))} ({each} a worker and hour)"


def print_calibration(measured: Calibration, figures: Estimate) -> None:
    """The figure for a rates file that `plan --calibrate` has measured."""
    reached = measured.tokens_per_second * figures.gflop_per_token
    work = f"{counted(measured.workers, 'worker')} at once, {counted(measured.documents, 'document')}"
    said = f"{work} in {span(measured.seconds)}: {reached:,.0f} GFLOP/s a worker, for a rates file"
    print_facts([("calibrated", said)])


def plan_facts(made: JobPlan, figures: Estimate) -> dict[str, Any]:
    """The same for machines."""
    from featurestore.storage.files import shown

    memory = memory_of(made, figures)
    return {
        "store": shown(made.job.store),
        "fingerprint": made.store.fingerprint,
        "begun": bool(made.committed) or made.finished,
        "finished": made.finished and not made.missing,
        **asdict(figures),
        "mean_tokens": made.mean_tokens,
        "sampled_documents": made.sample.documents,
        "truncated_share": made.sample.truncated_share,
        "unreadable": {
            "rows": sum(file.unreadable for file in made.scan.files),
            "share": sum(file.unreadable for file in made.scan.files) / made.scan.rows,
            "by_file": [asdict(one) for one in made.scan.unreadable],
        },
        "unkept": [asdict(one) for one in made.scan.unkept],
        "files": len(made.scan.files),
        "csv": {dialect: len(names) for dialect, names in _dialects(made).items()},
        "reached_twice": [list(pair) for pair in made.scan.reached_twice],
        "bundle": bundle_facts(made.bundle),
        "compute": asdict(made.compute),
        "memory": {**asdict(memory), "needed": memory.needed, "fits": memory.fits},
    }


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    """A bundle for machines."""
    return {
        "sha256": bundle.sha256,
        "model": bundle.model.name,
        "dtype": bundle.dtype,
        "hook_layers": list(bundle.hook_layers),
        "saes": [
            {
                "name": sae.name,
                "layer": sae.layer,
                "site": sae.site,
                "d_sae": sae.d_sae,
                "mismatch": list(sae.mismatch),
                "sha256": sae.sha256,
            }
            for sae in bundle.saes
        ],
        "bytes": sum((bundle.path / name).stat().st_size for name in bundle.files),
    }


def print_result(result: ExtractResult) -> None:
    """What `extract` says when it is over."""
    from featurestore.storage.files import shown

    if result.units_run:
        rate = f"{result.tokens_run / result.seconds:,.0f} tokens/s, start-up included"
        work = f"{counted(result.documents_run, 'document')}, {counted(result.tokens_run, 'token')}"
        took = f"{span(result.seconds)} ({rate}, {counted(result.workers, 'worker')})"
        print_page(f"{shown(result.store)}: {work} in {took}")
    else:
        print_page(f"{shown(result.store)}: nothing to do, the whole store is there ({counted(result.units, 'part')})")
    facts = [
        ("documents", f"{result.documents:,}, {result.errors:,} with an error"),
        ("tokens", f"{result.tokens:,}"),
        ("bytes", f"{result.bytes:,} ({result.bytes / max(result.documents, 1):,.0f} a document)"),
    ]
    print_facts(facts, margin=2)


def result_facts(made: JobPlan, result: ExtractResult) -> dict[str, Any]:
    """The same for machines."""
    from featurestore.storage.files import shown

    return {"fingerprint": made.store.fingerprint, **asdict(result), "store": shown(result.store)}


def _dialects(made: JobPlan) -> dict[str, list[str]]:
    """How CSV files are written -> which of them."""
    found: dict[str, list[str]] = {}
    for file in made.scan.files:
        if file.dialect is not None:
            found.setdefault(str(file.dialect), []).append(file.name)
    return found


def _how_far(made: JobPlan) -> str:
    if made.finished and not made.missing:
        return "complete"
    if made.committed:
        return f"{len(made.units) - len(made.missing):,} of {len(made.units):,} units there"
    return "to be made"
