"""Say how large the bundle of a job will be at least, from configs alone: before weights of anything are fetched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ray_jobs.backbone.sites import parse_hook
from ray_jobs.prepare.checkpoint import decoder_shapes, find_checkpoint, read_config, read_vision_config, truncate
from ray_jobs.prepare.compute_settings import settle
from ray_jobs.prepare.judge_sae import SaeConfig
from ray_jobs.prepare.registry import registered_config
from ray_jobs.prepare.sae_directories import own_config

if TYPE_CHECKING:
    from ray_jobs.spec import JobSpec, SaeSpec

ITEM_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class BundleSize:
    """In bytes, at the precision of the job.

    Attributes:
        weights: Of the decoder down to the deepest layer that is known to be read; of a tower, where images are.
        encoders: Of the SAEs whose width is known.
        unknown: SAEs whose layer or width only their own files say, which are not counted.
    """

    weights: int
    encoders: int
    unknown: tuple[str, ...]

    @property
    def total(self) -> int:
        """Both together."""
        return self.weights + self.encoders


def bundle_size(job: JobSpec) -> BundleSize:
    """What a job's bundle takes at least.

    Raises:
        BundleError: The model's config cannot be found, read or used.
    """
    item = ITEM_BYTES[settle(job, None).dtype]
    checkpoint = find_checkpoint(job.model)
    full = read_vision_config(checkpoint) if job.corpus.image is not None else read_config(checkpoint)
    config = full.get_text_config() if job.corpus.image is not None else full
    layers, encoders, unknown = [], 0, []
    for sae in job.saes:
        said = _said_of(sae)
        layer = sae.layer if sae.layer is not None or said.hook is None else parse_hook(said.hook, said.module)[0]
        if layer is None or said.d_sae is None:
            unknown.append(sae.name)
            continue
        layers.append(layer)
        encoders += said.d_sae * (said.d_in or config.hidden_size) * item
    n_layers = config.num_hidden_layers if not job.saes else min(max(layers, default=0) + 1, config.num_hidden_layers)
    truncate(config, n_layers)
    weights = sum(math.prod(shape) for shape in decoder_shapes(full, n_layers).values()) * item
    return BundleSize(weights, encoders, tuple(unknown))


def _said_of(sae: SaeSpec) -> SaeConfig:
    """What is said of an SAE without fetching it; nothing, where nothing is."""
    if sae.path is not None:
        return own_config(sae) or SaeConfig()
    return registered_config(str(sae.release), str(sae.id)) or SaeConfig()
