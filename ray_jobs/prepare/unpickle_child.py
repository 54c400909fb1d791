"""Convert a pickle of tensors to safetensors: the program that `pickles` runs in a process of its own.

It imports nothing of ours, so that it can run isolated from the environment (`python -I unpickle_child.py SOURCE
TARGET`).
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

SPARE_BYTES = 3 << 30
"""Memory that it may take beyond three times the file: what torch itself needs."""


def convert(source: str, target: str) -> int:
    """Read a pickle, write safetensors; says why not in one line on stderr, and returns 1."""
    limit = SPARE_BYTES + 3 * Path(source).stat().st_size
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
        if not isinstance(found, dict):
            raise TypeError(f"it holds a {type(found).__name__}, not tensors by name")
        tensors = {str(k): v.detach().contiguous().clone() for k, v in found.items() if isinstance(v, torch.Tensor)}
        plain = {str(k): v for k, v in found.items() if isinstance(v, bool | int | float | str)}
        other = [str(k) for k in found if str(k) not in tensors and str(k) not in plain and found[k] is not None]
        if other or not tensors:
            raise TypeError(f"{other[0]!r} is no tensor" if other else "it holds no tensor")
        save_file(tensors, target, {"values": json.dumps(plain)})
    except Exception as error:  # noqa: BLE001 (whatever it is, it is one line for the parent)
        print(" ".join(str(error).split())[:200] or type(error).__name__, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(convert(*sys.argv[1:]))
