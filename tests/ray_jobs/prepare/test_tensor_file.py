"""A file that is written tensor by tensor has the bytes that safetensors' own writer gives it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ray_jobs.prepare.tensor_file import write_tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bytes_are_those_of_safetensors(tmp_path: Path, dtype: torch.dtype) -> None:
    shapes = {
        "layers.10.w": (3, 5),
        "layers.2.w": (7,),
        "embed.wäight": (4, 2, 2),
        "a": (),
        "layers.2.b": (1, 1),
        "e": (0, 3),
    }
    tensors = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "theirs")
    asked = []

    def tensor(name: str) -> torch.Tensor:
        asked.append(name)
        return tensors[name].T.contiguous().T if tensors[name].ndim == 2 else tensors[name]

    write_tensors(tmp_path / "ours", shapes, dtype, tensor)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert asked == sorted(shapes)
