"""Split a decoder's layers over the devices of one worker: contiguous layers to each, so that no sum is taken apart.

A model that one device cannot hold is computed layer after layer on several: the residual stream crosses from device to
device, and every product is the one that a single device would compute. The layers are divided so that the fullest
device holds as few bytes as can be: the first one has the embedding too, and SAE encoders lie where their layer is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from featurestore.errors import JobSpecError
from ray_jobs.backbone.bundle import WEIGHTS_NAME, Bundle, tensor_header

TOWER = "vision_tower."  # what comes before all layers of a decoder, and has layers of its own
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Placement:
    """Where a worker's layers are.

    Attributes:
        devices: Of the worker, in the order of a forward pass.
        layers: The place in `devices` of each layer, ascending.
    """

    devices: tuple[torch.device, ...]
    layers: tuple[int, ...]

    @property
    def first(self) -> torch.device:
        """Where tokens enter."""
        return self.devices[0]

    def of(self, layer: int) -> torch.device:
        """Where a layer is, and what is hooked in it."""
        return self.devices[self.layers[layer]]


@dataclass(frozen=True)
class LayerBytes:
    """Bytes of the weights that a bundle's layers need.

    Attributes:
        embedding: What lies before the layers.
        layers: Of each layer up to the deepest hook.
        encoders: Of the SAE encoders that read each of them.
    """

    embedding: int
    layers: tuple[int, ...]
    encoders: tuple[int, ...]


def layer_bytes(bundle: Bundle) -> LayerBytes:
    """What a bundle's layers weigh, from the headers of its files.

    Raises:
        BundleError: A file is damaged.
    """
    layers, encoders = [0] * (bundle.last_layer + 1), [0] * (bundle.last_layer + 1)
    embedding = 0
    for name, (_, n_bytes) in tensor_header(bundle.path / WEIGHTS_NAME).items():
        number = layer_of(name)
        if number is None:
            embedding += n_bytes
        elif number < len(layers):  # of a bundle of which only some SAEs are used
            layers[number] += n_bytes
    for sae in bundle.saes:
        encoders[sae.layer] += sum(n_bytes for _, n_bytes in tensor_header(bundle.path / sae.file_name).values())
    return LayerBytes(embedding, tuple(layers), tuple(encoders))


def layers_kept(bundle: Bundle) -> int:
    """How many layers a bundle's weights are of; some more than its SAEs read, where only some of them are used.

    Raises:
        BundleError: The file is damaged.
    """
    found = map(layer_of, tensor_header(bundle.path / WEIGHTS_NAME))
    return 1 + max((number for number in found if number is not None), default=-1)


def layer_of(name: str) -> int | None:
    """The layer that a tensor of a decoder belongs to; None for one before or behind all layers, as a tower's are."""
    found = None if name.startswith(TOWER) else _LAYER.search(name)
    return int(found[1]) if found else None


def place(bundle: Bundle, device: str, n_devices: int = 1) -> Placement:
    """Divide a bundle's layers among the first `n_devices` devices of a kind.

    Raises:
        JobSpecError: torch sees fewer of them.
    """
    if n_devices == 1:
        return Placement((torch.device(device),), (0,) * (bundle.last_layer + 1))
    kind = torch.device(device).type
    if kind == "cuda" and (there := torch.cuda.device_count()) < n_devices:
        raise JobSpecError(
            f"workers.gpus: the layers are to be divided among {n_devices} GPUs, and torch sees {there} here; "
            "set it to what one node has"
        )
    devices = tuple(torch.device(kind, number) for number in range(n_devices))
    return Placement(devices, stages(layer_bytes(bundle), n_devices))


def stages(sizes: LayerBytes, n_devices: int) -> tuple[int, ...]:
    """The device of each layer, such that the fullest device holds as little as can be.

    Args:
        sizes: Of the layers.
        n_devices: How many there are; the last ones stay empty where there are fewer layers.
    """
    of_layers = [layer + encoder for layer, encoder in zip(sizes.layers, sizes.encoders, strict=True)]
    # a capacity below the largest layer, or below the embedding, would be exceeded
    least, most = max(sizes.embedding, *of_layers), sizes.embedding + sum(of_layers)
    while least < most:
        middle = (least + most) // 2
        if _filled(sizes.embedding, of_layers, middle)[-1] < n_devices:
            most = middle
        else:
            least = middle + 1
    return tuple(_filled(sizes.embedding, of_layers, least))


def _filled(embedding: int, layers: Sequence[int], capacity: int) -> list[int]:
    """The device of each layer where devices are filled to a capacity, one after the other."""
    device, held, placed = 0, embedding, list[int]()
    for n_bytes in layers:
        if held + n_bytes > capacity:
            device, held = device + 1, 0
        held += n_bytes
        placed.append(device)
    return placed


def moved_to(device: torch.device, value: Any) -> Any:
    """What a layer is given, on its device: tensors, alone or inside tuples, lists and mappings."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if type(value) in (tuple, list):
        return type(value)(moved_to(device, one) for one in value)
    if type(value) is dict:
        return {key: moved_to(device, one) for key, one in value.items()}
    return value
