"""Hold the memory that `plan` says a CPU worker takes against what one takes.

    python -m benchmarks.memory [--documents N] [--only WORD] [--json] [--record]

Each bundle is opened and run over the same documents in a process of its own, which reports the most memory that it has
had resident; `plan` has said what it would be before. Bundles: Gemma 3 270M in float32 and bfloat16 at several layers,
with SAEs of 4,096 and 65,536 features, in a chat template, and tiny checkpoints of which hardly anything but Python and
its libraries is left. One of them is run once more as a job, by the worker that Ray starts. Time is not measured: other
work on the machine does no harm.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.corpus import evenly_spaced, load_texts, write_jsonl
from ray_jobs.cluster.session import worker_environment

ROOT = Path(__file__).parents[1]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}"
)
WIDER = 16  # 65,536 features of the shipped SAE's 4,096
RESIDENT = "VmHWM:"  # in /proc/PID/status: the most that was ever resident


@dataclass(frozen=True)
class Case:
    """A bundle to open.

    Attributes:
        model: A model's directory.
        saes: As a job has them.
        settings: Of the job's model, beyond its name.
        job: What else the job says.
        by_ray: Whether Ray starts the worker.
    """

    model: Path
    saes: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    job: Mapping[str, Any] = field(default_factory=dict)
    by_ray: bool = False


def cases(directory: Path) -> Iterator[tuple[str, Callable[[], Case]]]:
    """Name -> what makes the case."""
    from benchmarks.weights import MODEL_NAME, model_directory
    from ray_jobs.demo import SAE_DIR

    def shipped(layer: int) -> tuple[Mapping[str, Any], ...]:
        return ({"path": str(SAE_DIR), "name": "s", "layer": layer, "allow_mismatch": True},)

    def wide() -> tuple[Mapping[str, Any], ...]:
        return ({"path": str(_widened(directory / "wide")), "name": "s"},)

    def of_270m(
        saes: Callable[[], Sequence[Mapping[str, Any]]], by_ray: bool = False, **settings: Any
    ) -> Callable[[], Case]:
        return lambda: Case(model_directory(), tuple(saes()), settings, {"hidden": ["mean", "last"]}, by_ray)

    for dtype in ("float32", "bfloat16"):
        for layer in (3, 9, 17):
            yield f"270M, {dtype}, layer {layer}", of_270m(lambda layer=layer: shipped(layer), dtype=dtype)
    yield "270M, float32, 65k features", of_270m(wide, dtype="float32")
    yield "270M, bfloat16, 65k features", of_270m(wide, dtype="bfloat16")
    of_chat = {"dtype": "bfloat16", "chat": True}
    yield "270M, bfloat16, chat", lambda: Case(_with_template(directory / "chat" / MODEL_NAME), shipped(9), of_chat)
    yield "270M, float32, by Ray", of_270m(lambda: shipped(9), by_ray=True, dtype="float32")
    for family in ("gemma2", "llama", "gpt2"):
        yield f"tiny {family}", lambda family=family: _tiny(directory, family)


def _with_template(directory: Path) -> Path:
    """Gemma 3 270M with a chat template, which the package of its weights does not have."""
    from benchmarks.weights import model_directory

    directory.mkdir(parents=True, exist_ok=True)
    for path in model_directory().iterdir():
        if not (directory / path.name).exists():
            (directory / path.name).symlink_to(path)
    (directory / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return directory


def _widened(directory: Path) -> Path:
    """The shipped SAE sixteen times side by side, of which all but the first can never fire."""
    import torch
    from safetensors.torch import load_file, save_file

    from ray_jobs.demo import SAE_DIR

    if directory.is_dir():
        return directory
    directory.mkdir()
    config = json.loads((SAE_DIR / "cfg.json").read_text(encoding="utf-8"))
    weights = load_file(SAE_DIR / "sae_weights.safetensors")
    n_features = config["d_sae"]
    tiled = {
        "W_enc": weights["W_enc"].repeat(1, WIDER),
        "W_dec": weights["W_dec"].repeat(WIDER, 1),
        "b_enc": torch.cat([weights["b_enc"], weights["b_enc"].new_full(((WIDER - 1) * n_features,), -1e9)]),
        "threshold": weights["threshold"].repeat(WIDER),
        "b_dec": weights["b_dec"],
    }
    save_file({name: tensor.contiguous() for name, tensor in tiled.items()}, directory / "sae_weights.safetensors")
    (directory / "cfg.json").write_text(json.dumps({**config, "d_sae": WIDER * n_features}), encoding="utf-8")
    return directory


def _tiny(directory: Path, family: str) -> Case:
    from tests.ray_jobs.backbone.decoders_for_tests import save_decoder
    from tests.tiny import tiny_gemma2, tiny_sae

    path = tiny_gemma2(directory) if family == "gemma2" else save_decoder(directory / f"tiny-{family}", family)
    sae = tiny_sae(directory / f"sae-{family}", model_name=path.name)
    return Case(path, ({"path": str(sae), "name": "s"},), {"dtype": "float32"})


def measure(case: Case, corpus: Path, n: int, directory: Path) -> dict[str, Any]:
    """What `plan` says of a case, and what its worker takes."""
    from ray_jobs.planning.job_plan import make_plan
    from ray_jobs.planning.memory import devices_of
    from ray_jobs.spec import job_from_mapping

    job = {
        "corpus": {"path": str(corpus), "text": "text", "id": "id"},
        "model": {"name": str(case.model), **case.settings},
        "saes": list(case.saes),
        "store": str(directory / "store"),
        "workers": {"max": 1, "gpus": 0, "cpus": 1},
        "units": {"documents": n},
        **case.job,
    }
    plan = make_plan(job_from_mapping(job, directory))
    (said,) = devices_of(plan, ray=case.by_ray)
    _leave_the_page_cache(plan.bundle.path)
    if case.by_ray:
        (directory / "job.json").write_text(json.dumps(job), encoding="utf-8")  # JSON is YAML
        stages = {"peak": _of_a_job(directory / "job.json")}
    else:
        spec = {"bundle": str(plan.bundle.path), "settings": plan.settings, "texts": str(corpus)}
        (directory / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        stages = _of_a_child(directory / "spec.json")
    return {**asdict(said), "estimated": said.total, "measured": stages["peak"], "stages": stages}


def _leave_the_page_cache(directory: Path) -> None:
    """Let a bundle be read from the disk: of one that was just written, more pages are mapped at a time."""
    os.sync()
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _of_a_child(spec: Path) -> dict[str, int]:
    """Bytes resident in a process that does what a specification says: at the end of each step, and the peak."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", str(spec)]
    environment = {**os.environ, **worker_environment(1)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
    stages: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return stages


def _of_a_job(job: Path) -> int:
    """The most that the worker of a job has resident, looked at four times a second."""
    command = [sys.executable, "-m", "sparsemill", "extract", str(job), "--json"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    most, over = 0, threading.Event()
    threading.Thread(target=lambda: (running.wait(), over.set()), daemon=True).start()
    while not over.wait(0.25):
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                said = (status.parent / "cmdline").read_bytes(), status.read_text(encoding="utf-8")
            except OSError:
                continue
            if said[0].startswith(b"ray::") and b"WorkerActor" in said[0] and _descends(status.parent, running.pid):
                most = max(most, _resident(said[1]))
    if running.returncode:
        raise SystemExit(f"the job ended with exit code {running.returncode}")
    return most


def _descends(process: Path, ancestor: int) -> bool:
    """Whether a process was started by another one, or by one that it started."""
    pid = int(process.name)
    while pid > 1 and pid != ancestor:
        try:
            lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        pid = next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))
    return pid == ancestor


def _resident(status: str) -> int:
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(RESIDENT))


def child(spec_file: Path) -> None:
    """Open a bundle, run it over the texts, and print what was resident at the end of each step."""
    spec = json.loads(spec_file.read_text(encoding="utf-8"))
    stages: dict[str, int] = {}

    def note(step: str) -> None:
        stages[step] = _resident(Path("/proc/self/status").read_text(encoding="utf-8"))

    import pyarrow as pa
    import torch

    from benchmarks.corpus import read_jsonl
    from ray_jobs.backbone.bundle import open_bundle
    from ray_jobs.corpus.extracted import part_rows
    from ray_jobs.corpus.read import DocumentRows
    from ray_jobs.engine.extractor import Extractor, ExtractSettings

    pa.array([""])
    torch.set_num_threads(1)
    note("libraries")
    settings = {
        **spec["settings"],
        "pools": tuple(spec["settings"]["pools"]),
        "hidden": tuple(spec["settings"]["hidden"]),
    }
    extractor = Extractor(open_bundle(spec["bundle"]), ExtractSettings(**settings))
    note("opened")
    texts = read_jsonl(Path(spec["texts"]))
    rows = extractor.extract(texts)
    note("extracted")
    documents = DocumentRows([str(n) for n in range(len(texts))], list(texts), {}, [None] * len(texts))
    part_rows(documents, rows)
    note("peak")
    print(json.dumps(stages))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write what was measured."""
    args = _parser().parse_args(argv)
    if args.child:
        child(Path(args.child))
        return 0
    described, found = machine.describe(), {}
    texts = evenly_spaced(load_texts(), args.documents)
    with tempfile.TemporaryDirectory() as name:
        corpus = write_jsonl(Path(name) / "c.jsonl", texts)
        for number, (title, make) in enumerate(cases(Path(name))):
            if args.only and args.only not in title:
                continue
            (directory := Path(name) / f"case-{number}").mkdir()
            found[title] = measure(make(), corpus, len(texts), directory)
            print(_line(title, found[title]), file=sys.stderr, flush=True)
    figures = {"machine": described, "command": sys.argv[1:], "documents": len(texts), "bundles": found}
    if args.record:
        print(report.record("memory", figures, described), file=sys.stderr)
    print(json.dumps(figures, indent=1) if args.json else shown(figures))
    return 0


def shown(figures: Mapping[str, Any]) -> str:
    """For a terminal."""
    return "\n".join(_line(title, row) for title, row in figures["bundles"].items())


def _line(title: str, row: Mapping[str, Any]) -> str:
    ratio = row["estimated"] / row["measured"]
    return f"{title:<32} {row['estimated'] / 1e6:7,.0f} MB said {row['measured'] / 1e6:7,.0f} MB taken {ratio:6.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--documents", type=int, default=160, help="of R8")
    parser.add_argument("--only", help="cases whose names hold this")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write into benchmarks/results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
