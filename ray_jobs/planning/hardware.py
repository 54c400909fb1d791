"""Read the rates file: what a kind of hardware does in a second and costs an hour.

The package ships `rates.yaml` with documented defaults; a user's copy replaces it whole. A rate is given in operations
a second, because a token's operations follow from the bundle, so one figure prices every model; a rate measured with
the job at hand may stand in its place. The file is read like a job: safe YAML, unknown keys refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from featurestore.base.did_you_mean import did_you_mean
from featurestore.errors import JobSpecError
from featurestore.specs.spec_file import load_spec
from ray_jobs.planning.shapes import shapes_of

if TYPE_CHECKING:
    from ray_jobs.backbone.bundle import Bundle
    from ray_jobs.planning.job_plan import JobPlan

SHIPPED_RATES = Path(__file__).with_name("rates.yaml")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Hardware(BaseModel):
    """One kind of hardware, a GPU or a CPU core.

    Attributes:
        device: Which of the two.
        gflop_per_second: What it sustains in a run.
        tokens_per_second: A measured rate, instead.
        per_hour: Money for an hour of it.
        memory_gb: What it has, in billions of bytes; a CPU core has its host's, which this file does not know.
        source: Where the figures come from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Literal["gpu", "cpu"] = "gpu"
    gflop_per_second: Positive | None = None
    tokens_per_second: Positive | None = None
    per_hour: NotNegative
    memory_gb: Positive | None = None
    source: str = ""

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        if (self.gflop_per_second is None) == (self.tokens_per_second is None):
            raise ValueError("needs gflop_per_second or tokens_per_second, one of them; add or remove one")
        return self

    def rate(self, gflop_per_token: float) -> float:
        """Tokens a second, of a token that costs so many billions of operations."""
        if self.tokens_per_second is not None:
            return self.tokens_per_second
        assert self.gflop_per_second is not None
        return self.gflop_per_second / gflop_per_token


class Rates(BaseModel):
    """A rates file; `hardware` maps the name of a kind to its figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: Annotated[str, Field(min_length=1, max_length=12)] = "USD"
    hardware: Annotated[dict[str, Hardware], Field(min_length=1)]

    def kind(self, name: str, where: str) -> Hardware:
        """The figures of a kind of hardware.

        Raises:
            JobSpecError: The file does not have it; the message names the nearest.
        """
        if name in self.hardware:
            return self.hardware[name]
        hint = did_you_mean(name, self.hardware)
        raise JobSpecError(f"{where}: no hardware '{name}'{hint} (it has: {', '.join(self.hardware)})")


def load_rates(path: str | Path | None = None) -> Rates:
    """Read a rates file; the shipped one where none is named.

    Raises:
        JobSpecError: It cannot be read or is not one; one sentence naming file and key.
    """
    return load_spec(path or SHIPPED_RATES, Rates, JobSpecError)


def device_of(kind: str, rates: str | Path | None = None) -> str:
    """The torch device of a kind of hardware of a rates file.

    Raises:
        JobSpecError: The file cannot be read, or does not have it.
    """
    found = load_rates(rates).kind(kind, str(rates or "the shipped rates file"))
    return "cuda" if found.device == "gpu" else "cpu"


class Fed(NamedTuple):
    """What the layers compute of a document, which may be more than is pooled.

    Attributes:
        positions: How many positions of its windows are computed.
        keys: How many keys each of them sees, on average.
    """

    positions: float
    keys: float


def fed_of(plan: JobPlan) -> Fed | None:
    """What the layers compute of a document of a plan; None of images, and where the sample does not tell.

    A head that all documents share is computed once where our own layers run with dense attention (`PackedBackbone`),
    and with every window elsewhere. The beginning-of-sequence token is left out: it is one position of a window.
    """
    from ray_jobs.backbone.gemma import MODEL_TYPES
    from ray_jobs.backbone.tokens import token_policy

    sample, bundle = plan.sample, plan.bundle
    if bundle.vision is not None or not sample.mean_window:
        return None
    n_bos = len(bundle.tokenizer.bos)
    n_head = max(len(token_policy(bundle, plan.job.model).shared) - n_bos, 0)
    if bundle.model.model_type not in MODEL_TYPES or plan.compute.attn != "eager":
        n_head = 0
    window = max(sample.mean_window - n_bos, 1.0)
    own = max(window - n_head, 1.0)
    return Fed(max(sample.mean_fed / sample.mean_window * own, sample.mean_tokens), window - own / 2)


def gflop_per_token(bundle: Bundle, mean_tokens: float, fed: Fed | None = None) -> float:
    """Billions of operations that a pooled token costs: matrices, attention and SAE encoders.

    Two for each entry of the layers' matrices, as the bundle's own tensors have them, and of the SAE encoders; four
    for each head's dimension and key that a position sees, half a window on average. Layers compute what is fed,
    templates and what windows repeat included, and encoders what is pooled. Norms, activations and pooling are left
    out, and every matrix is taken to serve every position, which a mixture of experts does not. Of images, the tower's
    at its patches are shared out among the tokens that are pooled, as is what is fed and not pooled; prompts are left
    out where they are not.

    Args:
        bundle: The bundle.
        mean_tokens: Pooled tokens of a document.
        fed: What the layers compute of it; where not given, one window of its pooled tokens.

    Raises:
        BundleError: The bundle's weights cannot be read.
    """
    from ray_jobs.backbone.bundle import WEIGHTS_NAME, tensor_header
    from ray_jobs.backbone.pipeline import TOWER, layer_of

    decoder, tower = shapes_of(bundle)
    shapes = {name: shape for name, (shape, _) in tensor_header(bundle.path / WEIGHTS_NAME).items()}
    layers = bundle.last_layer + 1
    matrices = sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if len(shape) >= 2 and (number := layer_of(name)) is not None and number < layers
    )
    encoders = sum(sae.d_in * sae.d_sae for sae in bundle.saes)
    vision, width = bundle.vision, decoder.H * decoder.E
    if vision is None or tower is None:
        times = fed.positions / mean_tokens if fed and mean_tokens else 1.0
        keys = fed.keys if fed else mean_tokens / 2
        return (times * (2 * matrices + 4 * layers * width * keys) + 2 * encoders) / 1e9
    positions = max(vision.tokens + len(vision.before) + len(vision.after), mean_tokens)
    document = positions * (2 * matrices + 4 * layers * width * positions)
    document += vision.tokens * 2 * _entries(shapes, "multi_modal_projector.")
    document += vision.patches * (2 * _entries(shapes, TOWER) + 4 * tower.layers * tower.H * tower.E * vision.patches)
    return (document / max(mean_tokens, 1.0) + 2 * encoders) / 1e9


def _entries(shapes: Mapping[str, list[int]], where: str) -> int:
    """Entries of the matrices below a name, tables of embeddings left out."""
    return sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if name.startswith(where) and len(shape) == 2 and "embedding" not in name
    )
