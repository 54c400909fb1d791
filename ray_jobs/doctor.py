"""The command `doctor`: what a job needs, and whether it is here: packages, devices, memory, hub, files, store, Ray.

Nothing is computed and nothing is kept: a file is written to the store's place and to the cache and removed again.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.requirements import Requirement

from featurestore.base.json_text import print_json
from featurestore.base.library_errors import brief
from featurestore.base.number_words import counted, size
from featurestore.base.terminal import print_facts
from featurestore.errors import SparsemillError
from featurestore.storage.cache import cache_path
from ray_jobs.quiet import silence_libraries

if TYPE_CHECKING:
    from ray_jobs.prepare.bundle_size import BundleSize
    from ray_jobs.spec import JobSpec

Verdict = Literal["right", "note", "wrong"]

LEAST_FREE_BYTES = 5e9
"""Free in the cache: less is hardly enough for a bundle of 2B parameters."""

SHOWN = ("torch", "transformers", "sae-lens", "ray", "pyarrow", "polars", "scikit-learn")


@dataclass(frozen=True)
class Finding:
    """What one look found.

    Attributes:
        what: What was looked at.
        verdict: `right`; `note`, worth knowing; `wrong`, which would stop the job.
        said: One line.
        do: What to do about it; empty where there is nothing to do.
    """

    what: str
    verdict: Verdict
    said: str
    do: str = ""


def doctor_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `sparsemill doctor`."""
    parser.description = (
        "Look whether this machine can do the work: Python and packages, processor and GPU, cache and disk, the hub; "
        "of a job also its files, model, SAEs and the place of its store; of a cluster whether it answers. Exit code 1 "
        "if something would stop the job."
    )
    parser.epilog = (
        "examples:\n  sparsemill doctor\n  sparsemill doctor job.yaml --address auto\n"
        "  sparsemill doctor job.yaml --address http://127.0.0.1:8265"
    )
    parser.add_argument("job", nargs="?", metavar="JOB.yaml", help="a job that is to run here, or there")
    parser.add_argument(
        "--address", help="Ray cluster that it is to run on: auto, HOST:PORT, or the URL of its dashboard as for submit"
    )


def doctor(args: argparse.Namespace) -> int:
    """Run `sparsemill doctor`."""
    silence_libraries()
    found: list[Finding] = []
    signs = {"right": "ok", "note": "note", "wrong": "WRONG"}
    for one in _findings(args.job, args.address):
        found.append(one)
        if not args.json:
            print_facts([(signs[one.verdict], f"{one.what}: {one.said}"), *([("", one.do)] if one.do else [])])
            sys.stdout.flush()
    n_wrong = sum(one.verdict == "wrong" for one in found)
    if args.json:
        print_json({"version": 1, "ok": not n_wrong, "findings": [asdict(one) for one in found]})
    else:
        print(f"{counted(n_wrong, 'thing')} would stop the work" if n_wrong else "nothing would stop the work")
    return 1 if n_wrong else 0


def _findings(job_file: str | None, address: str | None) -> Iterator[Finding]:
    job = None
    if job_file is not None:
        from ray_jobs.labels.spec import load_either

        job = load_either(job_file)[1]  # a mistake in it is a mistake of usage, as for every command
    yield from _packages()
    yield from _hardware(job if address is None else None)
    size_of = functools.cache(lambda: _bundle_size(job))
    yield _cache(size_of)
    yield from _hub(job)
    if job is not None:
        yield _corpus(job)
        yield _model(job)
        if address is None and (needed := size_of()) is not None:
            yield _memory(job, needed)
        yield _store(job)
    yield _ray(address, job)


def _packages() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    do = "" if fits else "make an environment with Python 3.11, 3.12 or 3.13"
    yield Finding("python", "right" if fits else "wrong", python, do)
    there, missing = {}, []
    for needed in map(Requirement, requires("sparsemill") or ()):
        if needed.marker is not None and not needed.marker.evaluate({"extra": "extract"}):
            continue
        try:
            there[needed.name] = found = version(needed.name)
        except PackageNotFoundError:
            missing.append(needed.name)
            continue
        if not needed.specifier.contains(found, prereleases=True):
            said = f"{found} is there, and this version of Sparsemill was made for {needed.specifier}"
            yield Finding(needed.name, "wrong", said, f"pip install '{needed.name}{needed.specifier}'")
    if missing:
        yield Finding("packages", "wrong", f"not there: {', '.join(missing)}", "pip install 'sparsemill[extract]'")
    else:
        yield Finding("packages", "right", ", ".join(f"{name} {there[name]}" for name in SHOWN if name in there))


def _hardware(job: JobSpec | None) -> Iterator[Finding]:
    import torch

    from ray_jobs.backbone.backbone import default_dtype
    from ray_jobs.planning.memory import host_memory

    cores, memory = os.cpu_count() or 1, host_memory()
    yield Finding("processor", "right", f"{counted(cores, 'core')}, {size(memory)} of memory, {default_dtype('cpu')}")
    wanted = job is not None and (job.workers.gpus or 0) > 0
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            said = f"{properties.name}, {size(properties.total_memory)}, {default_dtype('cuda')}"
            yield Finding(f"GPU {number}", "right", said)
        yield _compiler()
    elif Path("/proc/driver/nvidia/version").is_file():
        do = "install a torch with CUDA (https://pytorch.org/get-started)"
        yield Finding(
            "GPU", "wrong" if wanted else "note", f"a driver is there, and torch {torch.__version__} sees none", do
        )
    elif wanted:
        yield Finding("GPU", "wrong", "the job wants one and there is none", "set workers.gpus: 0, or run on a cluster")
    else:
        yield Finding("GPU", "note", "none; the work is done on the processor")
    if job is not None and (wanted_each := int(job.workers.gpus or 0)) > 1 and torch.cuda.is_available():
        said = f"each divides its layers among {wanted_each}"
        if (there := torch.cuda.device_count()) >= wanted_each:
            yield Finding("GPUs of a worker", "right", said)
        else:
            do = f"set workers.gpus to {there or 1}, or run on nodes that have so many"
            yield Finding("GPUs of a worker", "wrong", f"{said}, and this machine has {there}", do)


def _compiler() -> Finding:
    """Triton, which makes attention for a GPU, has a C compiler build its launcher on this machine."""
    given = [os.environ.get("CC"), "gcc", "clang"]
    found = next((path for name in given if name and (path := shutil.which(name))), None)
    if found is not None:
        return Finding("C compiler", "right", found)
    return Finding(
        "C compiler", "wrong", "there is none, and attention on a GPU is compiled", "install gcc (apt: gcc libc6-dev)"
    )


def _bundle_size(job: JobSpec | None) -> BundleSize | None:
    """None without a job, or with one whose model cannot be read, of which another line speaks."""
    from ray_jobs.prepare.bundle_size import bundle_size

    if job is None:
        return None
    try:
        return bundle_size(job)
    except Exception:  # noqa: BLE001 (libraries raise anything)
        return None


def _memory(job: JobSpec, needed: BundleSize) -> Finding:
    from ray_jobs.planning.memory import device_memory
    from ray_jobs.prepare.compute_settings import settle

    device, gpus = settle(job, None).device, max(1, int(job.workers.gpus or 1))
    available = device_memory(device) * (gpus if device != "cpu" else 1)
    said = f"weights {size(needed.weights)}, encoders {size(needed.encoders)}"
    if needed.unknown:
        said += f" without {', '.join(needed.unknown)}, whose files say how wide they are"
    if not available:
        return Finding("memory of a worker", "right", said)
    place = "this machine" if device == "cpu" else "its GPU" if gpus == 1 else f"its {gpus} GPUs"
    said += f"; {place} has {size(available)}" if gpus == 1 else f"; {place} have {size(available)}"
    if needed.total <= available:
        return Finding("memory of a worker", "right", f"{said} (what batches take besides, `plan` says)")
    smaller = "take fewer layers" if job.saes else "take a smaller model"
    if device == "cpu":  # weights are mapped from files
        return Finding("memory of a worker", "note", said, f"weights will be read from disk again and again; {smaller}")
    shorter = "model.dtype: bfloat16, " if settle(job, None).dtype == "float32" else ""
    do = f"set {shorter}workers.gpus: {2 * gpus}, or {smaller}" + " or narrower SAEs" * bool(job.saes)
    return Finding("memory of a worker", "wrong", said, do)


def _cache(size_of: Callable[[], BundleSize | None]) -> Finding:
    place = cache_path("")
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place) as file:
            file.write(b"?")
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding(
            "cache", "wrong", f"{place} cannot be written ({brief(error)})", "set SPARSEMILL_CACHE elsewhere"
        )
    said = f"{place}, {size(free)} free"
    needed = size_of()
    if needed is not None and needed.total > free:
        do = "`sparsemill cache clean` makes room where it is not there yet; or set SPARSEMILL_CACHE elsewhere"
        return Finding("cache", "note", f"{said}, and the job's bundle takes {size(needed.total)}", do)
    if needed is None and free < LEAST_FREE_BYTES:
        return Finding(
            "cache", "note", said, "a bundle of a large model may not fit; `sparsemill cache clean` makes room"
        )
    return Finding("cache", "right", said)


def _hub(job: JobSpec | None) -> Iterator[Finding]:
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    needed = job is not None and (_is_hub_name(job.model.name) or any(sae.path is None for sae in job.saes))
    if HF_HUB_OFFLINE:
        yield Finding("hub", "note", "HF_HUB_OFFLINE is set: only what is in its cache can be used")
        return
    token = get_token()
    try:
        name = HfApi().whoami(token)["name"] if token else _reach(ENDPOINT)
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        do = "check the network" if not token else "check the network and HF_TOKEN"
        yield Finding("hub", "wrong" if needed else "note", f"{ENDPOINT} does not answer ({brief(error)})", do)
        return
    if token:
        yield Finding("hub", "right", f"{ENDPOINT} knows the token of {name}")
    else:
        do = "for models with a licence (Gemma, Llama): accept it on the hub, and set HF_TOKEN"
        yield Finding("hub", "note", f"{ENDPOINT} answers; there is no access token", do)


def _reach(endpoint: str) -> str:
    from huggingface_hub.utils import get_session

    get_session().get(endpoint, timeout=5.0)
    return ""


def _is_hub_name(name: str) -> bool:
    return not name.endswith(".gguf") and not Path(name).expanduser().exists()


def _corpus(job: JobSpec) -> Finding:
    def look() -> str:
        from featurestore.finding.files import find_files

        if job.corpus.image is not None:
            from ray_jobs.images.decoder import decoder_version

            decoder_version()
        files = find_files(list(job.corpus.path), job.corpus.find_as)
        return f"{counted(len(files), 'file')}, {size(sum(file.size or 0 for file in files))}"

    return _looked("corpus", look)


def _model(job: JobSpec) -> Finding:
    def look() -> str:
        from ray_jobs.prepare.checkpoint import find_checkpoint, read_config, read_vision_config

        checkpoint = find_checkpoint(job.model)
        of_images = job.corpus.image is not None
        config = read_vision_config(checkpoint).get_text_config() if of_images else read_config(checkpoint)
        return f"{config.model_type}, {config.num_hidden_layers} layers, d_model {config.hidden_size}"

    return _looked("model", look)


def _store(job: JobSpec) -> Finding:
    def look() -> str:
        from featurestore.storage.files import shown
        from featurestore.writing.write_check import check_writable

        check_writable(job.store)
        return f"{shown(job.store)} can be written"

    return _looked("store", look)


def _ray(address: str | None, job: JobSpec | None = None) -> Finding:
    have: dict[str, float] = {}

    def look() -> str:
        nodes = _nodes(address)
        for node in nodes:
            for name in ("CPU", "GPU"):
                have[name] = have.get(name, 0) + node.get(name, 0)
        gpus = f", {counted(int(have['GPU']), 'GPU')}" if have.get("GPU") else ""
        where = "starts here" if address is None else "answers"
        return f"{where}: {counted(len(nodes), 'node')}, {counted(int(have.get('CPU', 0)), 'CPU')}{gpus}"

    found = _looked("ray", look)
    wanted = address is not None and job is not None and job.workers.gpus
    if found.verdict == "right" and wanted and not have.get("GPU"):
        do = "without an autoscaler that adds nodes with GPUs, set workers.gpus: 0"
        return Finding("ray", "note", f"{found.said}, and none of the GPUs that the job wants", do)
    return found


def _nodes(address: str | None) -> list[dict[str, float]]:
    """What each living node of a cluster has, by Ray's names of resources."""
    from ray_jobs.cluster.session import is_dashboard, ray_cluster

    if address is not None and is_dashboard(address):
        from ray_jobs.cluster.submit import nodes_of

        return nodes_of(address)
    with ray_cluster(address, 1, 0) as ray:
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _looked(what: str, look: Callable[[], str]) -> Finding:
    """What a look says, or the sentence that refuses it, whose part behind the last semicolon is what to do."""
    try:
        return Finding(what, "right", look())
    except SparsemillError as error:
        said, _, do = str(error).rpartition("; ")
        return Finding(what, "wrong", said or do, do if said else "")
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        return Finding(what, "wrong", brief(error))
