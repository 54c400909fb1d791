"""What the GPU benchmark runs on: Gemma 2 in its true shapes with random weights, JumpReLU SAEs for it, and documents.

Speed depends on shapes, on the documents' lengths and on how many features fire, not on what weights mean. Weights are
Gaussian, scaled so that rounding errors stay small on their way through the layers, as they do in a trained model:
attention scores deviate by 2, a sublayer adds 0.3 of the stream's scale. An SAE's directions are random; how often each
feature fires is drawn from a log-normal distribution as skewed as that of trained SAEs (deviation 2, a few dozen
percent of all features in a document), and its threshold is the quantile of the model's own activations that makes it
fire so often: 80 features a token on average. Everything comes from fixed seeds.

Shapes: N tokens, D d_model, F features, C features of a chunk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.arithmetic import GEMMA_2_2B, GEMMA_2_9B, Shape
from ray_jobs.backbone.bundle import (
    CONFIG_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    Bundle,
    ModelInfo,
    SaeInfo,
    TokenizerInfo,
    open_bundle,
    write_manifest,
)
from ray_jobs.backbone.sae_families import SaeWeights, fold

PAD, EOS, BOS, UNKNOWN = 0, 1, 2, 3
FIRST_WORD = 4
SCORE_DEVIATION = 2.0
ADDED_SCALE = 0.3
L0 = 80
SPREAD = 2.0
"""Standard deviation of the logarithm of firing frequencies."""
MOST_FREQUENT = 0.5
SAMPLE_TOKENS = 16_384
"""Whose activations the thresholds are quantiles of: a feature that fires on fewer than one of them is given one."""
CHUNK = 4_096
SHORTEST = 8


@dataclass(frozen=True)
class Case:
    """A model, the layer that is hooked, and the SAEs that read it, one at a time.

    Attributes:
        shape: Of its layers.
        n_layers: Of the whole model.
        layer: The hook: `resid_post` of this layer.
        widths: Features of each SAE.
        vocab_size: Rows of the embedding, which is the head's matrix too.
    """

    shape: Shape
    n_layers: int
    layer: int
    widths: tuple[int, ...]
    vocab_size: int = 256_000

    def config(self, n_layers: int) -> Any:
        """The config of the model's first layers, as Google's are but for the number of layers."""
        from transformers import Gemma2Config

        return Gemma2Config(
            vocab_size=self.vocab_size,
            hidden_size=self.shape.d_model,
            intermediate_size=self.shape.mlp,
            num_hidden_layers=n_layers,
            num_attention_heads=self.shape.n_heads,
            num_key_value_heads=self.shape.n_kv_heads,
            head_dim=self.shape.head_dim,
            query_pre_attn_scalar=self.shape.head_dim,
            pad_token_id=PAD,
            eos_token_id=EOS,
            bos_token_id=BOS,
        )


CASES = {"2b": Case(GEMMA_2_2B, 26, 12, (16_384,)), "9b": Case(GEMMA_2_9B, 42, 20, (16_384, 131_072))}
TINY = {
    "2b": Case(Shape("tiny-2b", 64, 4, 2, 16, 128), 4, 2, (256,), 600),
    "9b": Case(Shape("tiny-9b", 96, 4, 2, 32, 192), 5, 3, (256, 512), 600),
}


@dataclass(frozen=True)
class Document:
    """A document as ids [T] int32 without BOS, and as the text whose tokens they are."""

    ids: np.ndarray
    text: str


def documents(n: int, median: float, sigma: float, max_tokens: int, vocab_size: int, seed: int = 0) -> list[Document]:
    """Documents of random words, their lengths log-normal and cut to `max_tokens` less the BOS.

    Args:
        n: How many.
        median: Of the lengths before the cut, in tokens.
        sigma: Standard deviation of their logarithm.
        max_tokens: Positions fed at most, BOS included.
        vocab_size: Of the model.
        seed: Of everything.
    """
    generator = np.random.default_rng(seed)
    lengths = np.exp(np.log(median) + sigma * generator.standard_normal(n)).round().astype(np.int64)
    lengths = lengths.clip(SHORTEST, max_tokens - 1)
    ids = generator.integers(FIRST_WORD, vocab_size, int(lengths.sum()), dtype=np.int32)
    return [
        Document(part, " ".join(f"w{number}" for number in part.tolist()))
        for part in np.split(ids, np.cumsum(lengths)[:-1])
    ]


def random_model(case: Case, device: str, seed: int = 0, dtype: str = "bfloat16") -> Any:
    """The whole model with its head and eager attention, as transformers has it."""
    from transformers import AutoModelForCausalLM

    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            case.config(case.n_layers), dtype=getattr(torch, dtype), attn_implementation="eager"
        ).eval()
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(ADDED_SCALE - 1 if ".post_" in name else 0)
                continue
            # the embedding is multiplied by sqrt(d_model) when it is looked up: inputs of all matrices have unit scale
            deviation = parameter.shape[1] ** -0.5
            if "q_proj" in name or "k_proj" in name:
                deviation *= SCORE_DEVIATION**0.5
            parameter.normal_(0, deviation, generator=generator)
    return model


def write_bundles(
    folder: Path, name: str, case: Case, model: Any, x_ND: torch.Tensor, device: str, dtype: str = "bfloat16"
) -> dict[int, tuple[Bundle, float]]:
    """A bundle for each of a case's SAEs; they share the model's file.

    Args:
        folder: Where to.
        name: Prefix of their directories.
        case: Model and SAEs.
        model: The weights, in `dtype`.
        x_ND: Activations at the hook, float32.
        device: Where SAEs are made.
        dtype: Of the bundle.

    Returns:
        Features of the SAE -> its bundle, and how many features fire on a token of `x_ND` on average.
    """
    from safetensors.torch import save_file

    kept = case.config(case.layer + 1)
    weights = {
        key: value.cpu().contiguous()
        for key, value in model.model.state_dict().items()
        if key.startswith("embed_tokens.") or (key.startswith("layers.") and int(key.split(".")[1]) <= case.layer)
    }
    bundles: dict[int, tuple[Bundle, float]] = {}
    for width in case.widths:
        path = folder / f"{name}-{width}"
        path.mkdir(parents=True)
        if bundles:
            os.link(bundles[case.widths[0]][0].path / WEIGHTS_NAME, path / WEIGHTS_NAME)
        else:
            save_file(weights, path / WEIGHTS_NAME)
            weights.clear()
        (path / CONFIG_NAME).write_text(kept.to_json_string(use_diff=False), encoding="utf-8")
        write_tokenizer(path / TOKENIZER_NAME, case.vocab_size)
        info = SaeInfo(
            name=f"l{case.layer}_{width}",
            layer=case.layer,
            site="resid_post",
            d_in=case.shape.d_model,
            d_sae=width,
            architecture="jumprelu",
            apply_b_dec_to_input=False,
            source={"path": "random"},
            mismatch=(),
            unverified=(),
        )
        sae, l0 = random_sae(x_ND, width, device)
        tensors = sae.tensors()
        tensors["W_enc"] = tensors["W_enc"].to(getattr(torch, dtype))
        save_file({key: value.contiguous() for key, value in tensors.items()}, path / info.file_name)
        model_info = ModelInfo(
            name=case.shape.name,
            source="random",
            revision=None,
            model_type=kept.model_type,
            n_layers=case.n_layers,
            d_model=case.shape.d_model,
            vocab_size=case.vocab_size,
            softcap=kept.attn_logit_softcapping,
        )
        manifest: Mapping[str, Any] = {
            "model": asdict(model_info),
            "dtype": dtype,
            "saes": [asdict(info)],
            "tokenizer": asdict(TokenizerInfo(bos=(BOS,), pad=PAD, chat_prefix=None, chat_suffix=None)),
        }
        write_manifest(path, manifest)
        bundles[width] = open_bundle(path), l0
    return bundles


def random_sae(x_ND: torch.Tensor, d_sae: int, device: str) -> tuple[SaeWeights, float]:
    """A JumpReLU SAE for activations like these, on the CPU, its rows in bfloat16; and its mean L0 on them."""
    generator = torch.Generator(device).manual_seed(d_sae)
    x_ND, mean_D = x_ND.to(device), x_ND.mean(0).to(device)
    W_FD = torch.randn(d_sae, x_ND.shape[1], generator=generator, device=device)
    W_FD = (W_FD / W_FD.norm(dim=1, keepdim=True)).to(torch.bfloat16)
    share_F = torch.exp(SPREAD * torch.randn(d_sae, generator=generator, device=device))
    for _ in range(50):  # what is cut off at the top is handed to the others
        share_F = (share_F * (min(L0, d_sae / 8) / share_F.sum())).clamp(max=MOST_FREQUENT)
    rank_F = (share_F * len(x_ND)).round().long().clamp(min=1)
    bias_F, threshold_F = (torch.empty(d_sae, device=device) for _ in range(2))
    centred_ND = x_ND - mean_D
    for features in _slices(d_sae):
        W_CD = W_FD[features].float()
        ranked_CN = (W_CD @ centred_ND.T).sort(dim=1, descending=True).values
        quantile_C = ranked_CN.gather(1, rank_F[features, None])[:, 0]
        # the same features whatever is added to bias and threshold alike; a JumpReLU threshold must not be negative
        lift_C = (1.0 - quantile_C).clamp(min=0)
        bias_F[features], threshold_F[features] = lift_C - W_CD @ mean_D, quantile_C + lift_C
    tensors = {"W_enc": W_FD.T, "b_enc": bias_F, "threshold": threshold_F, "b_dec": mean_D}
    weights = fold("jumprelu", {key: value.cpu() for key, value in tensors.items()})
    return weights, float(rank_F.sum()) / len(x_ND)


def write_tokenizer(path: Path, vocab_size: int) -> None:
    """A tokenizer whose words are `w4`, `w5`, ...: a stand-in, far faster than Gemma's."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    words = {"<pad>": PAD, "<eos>": EOS, "<bos>": BOS, "<unk>": UNKNOWN}
    words |= {f"w{number}": number for number in range(FIRST_WORD, vocab_size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))


def sample(documents: Sequence[Document], n_tokens: int) -> list[Document]:
    """The first documents that have so many tokens together."""
    ends = np.cumsum([len(document.ids) for document in documents])
    return list(documents[: int(np.searchsorted(ends, n_tokens)) + 1])


def plain_config(case: Case) -> dict[str, Any]:
    """The config as `benchmarks.limit` reads one."""
    config: dict[str, Any] = json.loads(case.config(case.n_layers).to_json_string(use_diff=False))
    return config


def _slices(n: int) -> Iterator[slice]:
    for first in range(0, n, CHUNK):
        yield slice(first, min(first + CHUNK, n))
