"""Two devices on a machine that has none: tensors carry where they are said to be, and what mixes them is refused.

torch lets a CPU have a number (`cpu:1`) and then forgets it. Under `places()` a tensor remembers the device that it was
made on or moved to, whatever comes of it is there too, and an operation on tensors of two devices fails, as on GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

_READS = {
    "__get__",
    "size",
    "dim",
    "stride",
    "numel",
    "is_floating_point",
    "__repr__",
    "element_size",
    "_has_compatible_shallow_copy_type",
}


def place_of(tensor: torch.Tensor) -> torch.device:
    """Where a tensor is said to be."""
    return getattr(tensor, "place", torch.device("cpu", 0))


class _Places(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.moves: list[tuple[torch.device, torch.device]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "__get__" and isinstance(result, torch.device):
            return place_of(args[0])
        if name in _READS:
            if name == "__get__" and isinstance(result, torch.Tensor) and args and isinstance(args[0], torch.Tensor):
                result.place = place_of(args[0])  # .data, .T, .grad
            return result
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if name == "__set__":  # parameter.data = tensor
            args[0].place = place_of(args[1])
            return result
        wanted = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.device)]
        if name == "to" and wanted:
            if place_of(args[0]) != (there := _numbered(wanted[0])):
                self.moves.append((place_of(args[0]), there))
                result = result.clone() if result is args[0] else result
            result.place = there
            return result
        if name == "empty" and not wanted:  # of code for CPUs alone: whatever is written into it says where it is
            return result
        known = [one.place for one in inputs if hasattr(one, "place")]
        if inputs and not known and name in ("__getitem__", "chunk", "view", "expand"):
            return result  # of such a tensor, too
        for one in inputs:
            if not hasattr(one, "place"):
                one.place = known[0] if known else torch.device("cpu", 0)
        # a number may be added to tensors anywhere
        places = {place_of(one) for one in inputs if one.dim()} or {place_of(one) for one in inputs}
        assert len(places) < 2, f"{name} mixes tensors of {', '.join(sorted(map(str, places)))}"
        (place,) = places or {_numbered(wanted[0]) if wanted else torch.device("cpu", 0)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                leaf.place = place
        return result


def _numbered(device: torch.device) -> torch.device:
    return torch.device("cpu", device.index or 0)


@contextmanager
def places() -> Iterator[list[tuple[torch.device, torch.device]]]:
    """While it lasts, tensors have places; gives the list of moves from one to another."""
    mode = _Places()
    with mode:
        yield mode.moves
