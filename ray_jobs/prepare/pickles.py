"""Read the tensors of a pickle without running what may hide in it: in a process of its own, once.

`torch.load(weights_only=True)` knows only tensors and plain values, and refuses to call anything else. It runs in a
child process whose memory is limited, and what it reads is written as safetensors beside this machine's other caches,
under the sha256 of the pickle; this process opens that copy and never the pickle. It is done only where a job says
`allow_pickle: true` for an SAE.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from featurestore.errors import BundleError
from featurestore.storage.cache import cache_path
from featurestore.storage.node_lock import node_lock
from ray_jobs.backbone.bundle import file_sha256

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".npy")
"""Suffixes of files that run code when they are opened, or may (`.npy` holds objects only as pickles)."""

OPENED = (".pt", ".pth", ".bin", ".ckpt")
"""Those that torch writes, and `weights_only` can read."""

SECONDS = 600


def is_pickle(name: str) -> bool:
    """Whether a file of this name may hold code."""
    return Path(name).suffix.lower() in PICKLES


def without_code(path: Path) -> dict[str, Any]:
    """The tensors and plain values at the top of a pickle.

    Args:
        path: A file that `torch.save` wrote.

    Returns:
        Name -> tensor or value, as `torch.load` gives them.

    Raises:
        BundleError: It holds more than tensors and plain values, is damaged, or takes more memory than such a file may.
    """
    from safetensors import safe_open

    if path.suffix.lower() not in OPENED:
        raise BundleError(f"{path.name} is a pickle of a kind that is not opened; convert it to safetensors elsewhere")
    kept = cache_path("converted") / f"{file_sha256(path)}.safetensors"
    with node_lock(kept.with_suffix(".lock"), lambda: None):
        if not kept.is_file():
            _convert_apart(path, kept)
    with safe_open(kept, "pt") as file:
        values = json.loads((file.metadata() or {}).get("values", "{}"))
        return {**{name: file.get_tensor(name) for name in file.keys()}, **values}  # noqa: SIM118


def torch_that_reads_apart(torch: Any) -> Any:
    """A stand-in for the module torch whose `load` is `without_code`; all else is torch's own."""

    class _Torch(SimpleNamespace):
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    return _Torch(load=lambda path, *_args, **_kwargs: without_code(Path(path)))


def _convert_apart(path: Path, kept: Path) -> None:
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"{kept.parent} cannot be written ({error.strerror}); set SPARSEMILL_CACHE") from None
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=kept.parent) as scratch:
        written = Path(scratch) / "weights.safetensors"
        command = [sys.executable, "-I", str(Path(__file__).with_name("unpickle_child.py")), str(path), str(written)]
        environment = {key: os.environ[key] for key in ("PATH", "HOME", "LD_LIBRARY_PATH") if key in os.environ}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS, env=environment, cwd=scratch, check=False
            )
        except subprocess.TimeoutExpired:
            raise BundleError(
                f"{path.name} was not read within {SECONDS // 60} minutes; convert it elsewhere"
            ) from None
        if done.returncode or not written.is_file():
            reason = done.stderr.strip().splitlines()[-1:] or [f"its reader ended with {done.returncode}"]
            raise BundleError(
                f"{path.name} is not a pickle of tensors alone ({reason[0][:200]}); convert it to safetensors "
                "elsewhere and give its path, or choose another SAE"
            )
        written.replace(kept)
