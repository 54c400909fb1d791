"""A whole job on one GPU beside the engine in a loop: what Ray, reading, writing and the journal cost there.

    python -m benchmarks.gpu_job [--model 2b] [--documents 20000] [--workers 2] [--json] [--record]   # some minutes
    python -m benchmarks.gpu_job --tiny                                                  # small shapes, also on a CPU

`loop`: one process calls `Extractor.extract` on the texts of unit after unit. `job`: what `sparsemill extract` does
with the same units, one Ray actor on the GPU or `--workers` of them. Both clocks run while units are done; both do a
first unit before, which compiles the kernels. Random weights in true shapes and random documents, as in `gpu.py`: the
bundle is made of them directly, not prepared from a checkpoint; everything behind it is the product.

Idle is what the workers report: the share of a unit's time in which the GPU had been given nothing, by phase.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks import corpus, gpu_setup, machine, report
from benchmarks.gpu import FULL, MEDIAN, SIGMA, SMALL, device_name, sampled_residual
from benchmarks.gpu_setup import CASES, TINY, Case, Document
from benchmarks.gpu_ways import POOLS
from featurestore.checks.run_files import JOURNAL
from ray_jobs.backbone.bundle import Bundle
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.planning.job_plan import JobPlan, make_plan
from ray_jobs.run.driver import run_plan
from ray_jobs.spec import job_from_mapping

PHASES = ("read_seconds", "compute_seconds", "idle_seconds", "write_seconds")


def make_bundle(folder: Path, name: str, case: Case, documents: Sequence[Document], device: str) -> Bundle:
    """Random weights of a model's layers up to the hook, and the first of the case's SAEs."""
    model = gpu_setup.random_model(case, device)
    sampled = sampled_residual(model, case, documents)
    return gpu_setup.write_bundles(folder, name, case, model, sampled, device)[case.widths[0]][0]


def planned(
    bundle: Bundle, folder: Path, file: Path, device: str, unit_documents: int, max_tokens: int, workers: int
) -> JobPlan:
    """The job's plan, its bundle being there already."""
    mapping = {
        "corpus": {"path": str(file), "text": "text", "id": "id"},
        "model": {"name": str(bundle.path), "max_tokens": max_tokens, "dtype": bundle.dtype},
        "saes": [{"path": str(bundle.path), "name": sae.name} for sae in bundle.saes],
        "pool": list(POOLS),
        "store": str(folder / "store"),
        "units": {"documents": unit_documents},
        "workers": {"max": workers, "gpus": 1 / workers if device == "cuda" else 0},
    }
    with mock.patch("ray_jobs.prepare.build.prepare", return_value=bundle.path):
        return make_plan(job_from_mapping(mapping, folder))


def loop(plan: JobPlan) -> dict[str, Any]:
    """The engine alone, on texts in memory."""
    from ray_jobs.corpus.read import read_rows

    extractor = Extractor(plan.bundle, ExtractSettings(**plan.settings))
    texts = [read_rows(unit.slices, plan.job.corpus, plan.scan.keep_types).text for unit in plan.units]
    begun = time.perf_counter()
    extractor.extract(texts[0])
    first = time.perf_counter() - begun
    tokens, units = 0, []
    for of_unit in texts[1:]:
        begun = time.perf_counter()
        rows = extractor.extract(of_unit)
        units.append({"seconds": time.perf_counter() - begun, "idle_seconds": rows.idle_seconds})
        tokens += int(rows.n_tokens.sum())
    seconds = sum(unit["seconds"] for unit in units)
    return {"first_unit_seconds": first, "seconds": seconds, "tokens_per_second": tokens / seconds, "units": units}


def job(plan: JobPlan, workers: int) -> dict[str, Any]:
    """The same units through `sparsemill extract`'s path; clocks run from when each worker has done one unit."""
    begun = time.perf_counter()
    result = run_plan(plan)
    whole = time.perf_counter() - begun
    files = sorted((Path(plan.job.store) / JOURNAL).glob("*.json"))
    lines = sorted(
        (line for file in files for line in json.loads(file.read_text())), key=lambda line: line["finished_at"]
    )
    seconds, tokens = steady(lines, workers)
    phases = {phase: sum(line.get(phase, 0.0) for line in lines[workers:]) for phase in PHASES}
    return {
        "whole_seconds": whole,
        "errors": result.errors,
        "bytes": result.bytes,
        "first_unit_seconds": lines[0]["seconds"],
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "phases": phases,
        "idle_share": phases["idle_seconds"] / (phases["idle_seconds"] + phases["compute_seconds"]),
        "units": lines,
    }


def steady(lines: Sequence[Mapping[str, Any]], workers: int) -> tuple[float, float]:
    """Seconds and tokens between the end of the last worker's first unit and the beginning of the first one's leisure.

    A unit counts by the share of its time that lies in between; `lines` are in the order in which units ended.
    """
    begin, end = lines[workers - 1]["finished_at"], lines[-workers]["finished_at"]
    tokens = 0.0
    for line in lines:
        inside = min(end, line["finished_at"]) - max(begin, line["finished_at"] - line["seconds"])
        tokens += line["tokens"] * max(0.0, inside) / line["seconds"]
    return end - begin, tokens


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write what was measured."""
    args = _parser().parse_args(argv)
    cuda = torch.cuda.is_available()
    if not cuda and not args.tiny:
        print("error: no GPU here; --tiny runs small shapes on the CPU", file=sys.stderr)
        return 2
    device = "cuda" if cuda else "cpu"
    case, scale = (TINY[args.model], SMALL) if args.tiny else (CASES[args.model], FULL)
    described = {**machine.describe(), "device": device_name(device)}
    n_documents = min(args.documents, 64) if args.tiny else args.documents
    unit_documents = min(args.unit_documents, 16) if args.tiny else args.unit_documents
    documents = gpu_setup.documents(n_documents, MEDIAN, SIGMA, scale.max_tokens, case.vocab_size)
    with tempfile.TemporaryDirectory(prefix="gpu-job-", dir=args.work) as name:
        folder = Path(name)
        bundle = make_bundle(folder, args.model, case, documents, device)
        file = corpus.write_jsonl(folder / "corpus.jsonl", [document.text for document in documents])
        _free()
        plan = planned(bundle, folder, file, device, unit_documents, scale.max_tokens, args.workers)
        ways = {"loop": loop(plan)}
        _free()
        ways["job"] = job(plan, args.workers)
    figures = {
        "machine": described,
        "command": sys.argv[1:] if argv is None else list(argv),
        "model": args.model,
        "documents": n_documents,
        "units": len(plan.units),
        "workers": args.workers,
        "ways": ways,
        "overhead": ways["loop"]["tokens_per_second"] / ways["job"]["tokens_per_second"] - 1,
    }
    if args.record:
        print(report.record("gpu-job", figures, described), file=sys.stderr)
    print(json.dumps(figures, indent=1, default=report.plain) if args.json else shown(figures))
    return 0


def shown(figures: Mapping[str, Any]) -> str:
    """For a terminal."""
    loop, job = figures["ways"]["loop"], figures["ways"]["job"]
    parts = ", ".join(f"{phase.removesuffix('_seconds')} {seconds:.2f} s" for phase, seconds in job["phases"].items())
    return "\n".join(
        (
            f"{figures['model']}, {figures['documents']:,} documents in {figures['units']} units, "
            f"workers: {figures['workers']}",
            f"  loop      {loop['tokens_per_second']:,.0f} tokens/s; first unit {loop['first_unit_seconds']:.1f} s",
            f"  job       {job['tokens_per_second']:,.0f} tokens/s; first unit {job['first_unit_seconds']:.1f} s",
            f"  overhead  {figures['overhead']:+.1%}",
            f"  idle      {job['idle_share']:.1%} of the units' time ({parts})",
            f"  all       {job['whole_seconds']:.1f} s with Ray's start, opening and compiling; {job['errors']} errors",
        )
    )


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_job", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="2b", choices=sorted(CASES))
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--unit-documents", type=int, default=2_500, help="documents of a unit")
    parser.add_argument("--workers", type=int, default=1, help="that share the GPU: one computes while another writes")
    parser.add_argument("--tiny", action="store_true", help="small shapes and little text; runs on a CPU too")
    parser.add_argument("--work", type=Path, help="where bundle, corpus and store lie for as long as it runs")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/gpu-job-*.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
