"""Print what `prepare`, `plan` and `extract` found: lines for people, and the same as plain data for `--json`.

Nothing is computed here: figures come from `planning.estimate` and from the run. Sentences that warn are made in
`planning.warnings` and only broken into lines here.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from featurestore.base.text import about, counted, money, size, span

if TYPE_CHECKING:
    from ray_jobs.engine.bundle import Bundle
    from ray_jobs.planning.calibrate import Calibration
    from ray_jobs.planning.estimate import Estimate
    from ray_jobs.planning.job_plan import JobPlan
    from ray_jobs.run.outcome import ExtractResult

_INDENT = 11  # of what stands behind a label


def print_bundle(bundle: Bundle) -> None:
    """What `prepare` says."""
    facts = bundle_facts(bundle)
    print(f"{bundle.path}")
    print(
        f"  model   {facts['model']}, layers 0 to {max(bundle.hook_layers)} of {bundle.model.n_layers}, {bundle.dtype}"
    )
    for sae in bundle.saes:
        noted = f"; allowed although {'; '.join(sae.mismatch)}" if sae.mismatch else ""
        unsure = f"; its metadata does not say its {', '.join(sae.unverified)}" if sae.unverified else ""
        print(f"  SAE     {sae.name}: layer {sae.layer}, {sae.d_sae:,} features, {sae.architecture}{noted}{unsure}")
        print(f"          sha256 {sae.sha256}")
    print(f"  bytes   {facts['bytes']:,}")
    print(f"  sha256  {bundle.sha256}")


def print_plan(made: JobPlan, figures: Estimate) -> None:
    """What `plan` says before its warnings."""
    from featurestore.storage.files import shown

    compute, scanned = made.compute, made.scan
    n_bytes = sum(file.size or 0 for file in scanned.files)
    print(f"store      {shown(made.job.store)} ({_standing(made)})")
    files = counted(len(scanned.files), "file")
    print(f"corpus     {counted(figures.documents, 'document')} in {files}, {size(n_bytes)}")
    if scanned.again:
        name, first = scanned.again[0]
        more = f" (and {len(scanned.again) - 1:,} more reached twice)" if len(scanned.again) > 1 else ""
        print(f"           {name} is {first} again, which is read once{more}")
    for dialect, names in _dialects(made).items():
        print(f"csv        {dialect} ({names[0]}{f' and {len(names) - 1:,} more' if len(names) > 1 else ''})")
    sampled = counted(made.sampled, "sampled document")
    print(f"tokens     about {figures.tokens:,} (mean {made.mean_tokens:,.1f} of {sampled})")
    print(f"model      {made.bundle.model.name}, layers 0 to {max(made.bundle.hook_layers)}, {compute.dtype}")
    saes = ", ".join(f"{sae.name} (layer {sae.layer}, {sae.d_sae:,})" for sae in made.bundle.saes)
    print(f"saes       {saes}; {', '.join(made.job.pool)}")
    print(f"units      {figures.units:,} ({figures.missing_units:,} to do)")
    basis = "from the parts that are there" if figures.bytes_measured else "typical of such SAEs, a rough figure"
    print(f"bytes out  {about(size(figures.bytes_out))} ({basis})")
    print(f"workers    {compute.device}, {counted(compute.threads, 'thread')} each")
    if figures.worker_hours is None:
        print("hours      unknown: no rate measured here yet for this model; --calibrate measures it, --rate gives it,")
        print("           and --hardware takes it from the rates file")
        if (other := figures.rate_elsewhere) is not None:
            print(f"           elsewhere ({other.place}) a worker reached {other.tokens_per_second:,.0f} tokens/s")
            print(f"           on {other.date}; --rate {other.tokens_per_second:.0f} takes that")
    else:
        rate = f"{figures.tokens_per_second:,.0f} tokens/s a worker, {figures.rate_source}"
        print(f"hours      {about(span(figures.worker_hours * 3600))} of one worker ({rate})")
    if figures.wall_hours is not None:
        many = counted(made.job.workers.max or 1, "worker")
        print(f"           {about(span(figures.wall_hours * 3600))} with {many}")
    if figures.cost is not None:
        each = money(figures.price_per_hour or 0)
        print(f"cost       {about(money(figures.cost, figures.currency))} ({each} a worker and hour)")


def print_sentences(label: str, sentences: Iterable[str]) -> None:
    """Sentences under a label, broken to the width of a terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for sentence in sentences:
        lines = textwrap.wrap(sentence, max(width - _INDENT, 30), break_long_words=False, break_on_hyphens=False)
        print(f"{label:<{_INDENT}}{lines[0]}")
        for line in lines[1:]:
            print(f"{'':<{_INDENT}}{line}")


def print_calibration(measured: Calibration, figures: Estimate) -> None:
    """The figure for a rates file that `plan --calibrate` has measured."""
    reached = measured.tokens_per_second * figures.gflop_per_token
    work = f"{counted(measured.workers, 'worker')} at once, {counted(measured.documents, 'document')}"
    print(f"calibrated {work} in {span(measured.seconds)}: {reached:,.0f} GFLOP/s a worker, for a rates file")


def plan_facts(made: JobPlan, figures: Estimate) -> dict[str, Any]:
    """The same for machines."""
    from featurestore.storage.files import shown

    return {
        "store": shown(made.job.store),
        "fingerprint": made.store.fingerprint,
        "begun": bool(made.committed) or made.finished,
        "finished": made.finished and not made.missing,
        **asdict(figures),
        "mean_tokens": made.mean_tokens,
        "sampled_documents": made.sampled,
        "truncated_share": made.truncated_share,
        "unreadable": {
            "rows": sum(file.unreadable for file in made.scan.files),
            "share": sum(file.unreadable for file in made.scan.files) / made.scan.rows,
            "by_file": [asdict(one) for one in made.scan.unreadable],
        },
        "unkept": [asdict(one) for one in made.scan.unkept],
        "files": len(made.scan.files),
        "csv": {dialect: len(names) for dialect, names in _dialects(made).items()},
        "reached_twice": [list(pair) for pair in made.scan.again],
        "bundle": bundle_facts(made.bundle),
        "compute": asdict(made.compute),
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
        print(f"{shown(result.store)}: {work} in {took}")
    else:
        print(f"{shown(result.store)}: nothing to do, the whole store is there ({counted(result.units, 'part')})")
    print(f"  documents  {result.documents:,}, {result.errors:,} with an error")
    print(f"  tokens     {result.tokens:,}")
    print(f"  bytes      {result.bytes:,} ({result.bytes / max(result.documents, 1):,.0f} a document)")


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


def _standing(made: JobPlan) -> str:
    if made.finished and not made.missing:
        return "complete"
    if made.committed:
        return f"{len(made.units) - len(made.missing):,} of {len(made.units):,} units there"
    return "to be made"
