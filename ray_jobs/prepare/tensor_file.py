"""Write a safetensors file tensor by tensor, so that what is written need not be in memory whole.

The library's own `save_file` wants every tensor at once: 42 GB for the first 34 layers of a 27B model. The bytes are
the same as its: tensors in the order of their names, behind a header of names, shapes and places padded to eight bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_CODES = {"float32": "F32", "bfloat16": "BF16"}
_PIECE_BYTES = 1 << 26  # handed to the file system at a time


def write_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: Any, tensor: Callable[[str], Any]) -> None:
    """Write tensors of one dtype.

    Args:
        path: The file.
        shapes: Name -> shape of every tensor.
        dtype: torch.float32 or torch.bfloat16.
        tensor: Name -> the tensor, in this dtype and shape; called once for each, in the order of the file.

    Raises:
        OSError: The file cannot be written.
    """
    import torch

    code = _CODES[str(dtype).removeprefix("torch.")]
    header: dict[str, Any] = {}
    end = 0
    for name in sorted(shapes):
        start, end = end, end + math.prod(shapes[name]) * dtype.itemsize
        header[name] = {"dtype": code, "shape": list(shapes[name]), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in header:
            flat = tensor(name).contiguous().view(-1)
            step = _PIECE_BYTES // dtype.itemsize
            for first in range(0, len(flat), step):
                file.write(flat[first : first + step].view(torch.uint8).numpy().data)
