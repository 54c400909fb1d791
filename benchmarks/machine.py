"""What a record has to say about the machine it was made on."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "sparsemill", "torch", "transformers", "tokenizers", "sae-lens", "transformer-lens", "ray", "numpy", "pyarrow",
    "scipy", "polars", "zarr", "anndata", "h5py", "scikit-learn",
)  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile")
"""Of the CPU's flags, those that matrix products go by."""


def describe() -> dict[str, Any]:
    """CPU, cores, memory, flags, load and versions."""
    cpu = _cpu_info()
    flags = cpu.get("flags", "").split()
    return {
        "cpu": cpu.get("model name", platform.processor()),
        "cpu_family_model": f"{cpu.get('cpu family', '?')}/{cpu.get('model', '?')}",
        "cores": n_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "flags": [flag for flag in FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.release()}",
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def kind(machine: dict[str, Any]) -> str:
    """A short name for file names: `2-cores-amd-epyc`, or `nvidia-h200` of what was measured on one."""
    if (device := machine.get("device", "CPU").partition(" (")[0]) != "CPU":
        return "-".join(re.findall(r"[a-z0-9]+", device.lower()))
    model = re.sub(r"\(r\)|\(tm\)|cpu|processor|@.*", " ", machine["cpu"].lower())
    return "-".join([str(machine["cores"]), "cores", *re.findall(r"[a-z0-9]+", model)])


def _cpu_info() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
