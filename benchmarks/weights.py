"""The model and the SAEs that the benchmarks run: real weights of Gemma 3 270M, and SAEs made for its residual stream.

The model is dequantised once and kept as a Hugging Face directory, which every peer loads. The SAEs are JumpReLU in
sae-lens' format. Their directions are those of the trained SAE that this project ships, each as often as the width asks
for and every time turned by a random angle, as wider SAEs split the features of narrower ones; speed depends on width,
sparsity, how many features a document has, and (where candidates are chosen in 8 bits) on how much a feature stands
out of the residual stream, not on what it means. How often each feature fires is drawn from a log-normal distribution,
as skewed as those of trained SAEs, and its threshold is the quantile of real activations that makes it fire so often:
80 features a token on average, a fifth to a fourth of all features somewhere in a news article. Everything is built
once with fixed seeds and kept in the cache.

Shapes: N tokens, D d_model, F features, C features of a chunk.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.corpus import evenly_spaced, load_texts
from featurestore.storage.cache import cache_path

MODEL_NAME = "gemma-3-270m"
L0 = 80
SPREAD = 2.0
"""Standard deviation of the logarithm of firing frequencies: with it, the median feature fires on 0.07 % of tokens."""
MOST_FREQUENT = 0.5
COSINE = 0.8
"""Of a direction and the trained one it was made from. Prefiltering leaves 1.4 candidates for each active feature of
the trained SAE, 2 with this angle; 14 with directions that are random in the standardised stream."""
SAMPLE_DOCUMENTS = 160
"""Of R8, about 20,000 tokens: the rarest feature that their quantiles can resolve fires once."""
CHUNK = 4096


def model_directory() -> Path:
    """Gemma 3 270M as a Hugging Face directory in float32 (1.1 GB; the first call takes a minute)."""
    import torch
    import transformers

    from ray_jobs.demo import model_file

    path = cache_path("benchmarks") / MODEL_NAME
    if path.is_dir():
        return path
    file = model_file()
    where: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # transformers refuses to save what it holds to be quantised; these weights no longer are
    del model.config.quantization_config
    model.is_quantized, model.hf_quantizer = False, None
    with _built(path) as folder:
        model.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
    return path


def sae_directory(layer: int, d_sae: int, model: Path) -> Path:
    """The benchmark's SAE of a layer and width; built on first use (half a minute, minutes for the widest).

    Args:
        layer: The layer whose output it reads.
        d_sae: Number of features.
        model: What `model_directory` returned.
    """
    path = cache_path("benchmarks") / f"split-sae-layer-{layer}-{d_sae}"
    if not path.is_dir():
        with _built(path) as folder:
            write_sae(folder, residual_sample(model, layer), split_directions(d_sae), layer)
    return path


def residual_sample(model: Path, layer: int) -> Any:
    """The layer's output at the content tokens of some documents, float32 [N, D]; kept in the cache (46 MB)."""
    import numpy as np
    import torch
    import transformers

    path = cache_path("benchmarks") / f"residual-layer-{layer}"
    if path.is_dir():
        return torch.from_numpy(np.load(path / "x_ND.npy"))
    transformers.logging.set_verbosity_error()  # it reports the layers that are cut off
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    backbone = transformers.AutoModel.from_pretrained(
        model, **truncated(model, layer), dtype=torch.float32, attn_implementation="eager"
    )
    backbone.norm = torch.nn.Identity()
    rows = []
    with torch.inference_mode():
        for text in evenly_spaced(load_texts(), SAMPLE_DOCUMENTS):
            ids = tokenizer(text, truncation=True, max_length=1024, return_tensors="pt")["input_ids"]
            rows.append(backbone(input_ids=ids, use_cache=False).last_hidden_state[0, 1:])
    x_ND = torch.cat(rows)
    with _built(path) as folder:
        np.save(folder / "x_ND.npy", x_ND.numpy())
    return x_ND


def truncated(model: Path, layer: int) -> dict[str, Any]:
    """Overrides of a model's config that leave the layers up to `layer`."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(model)
    return {"num_hidden_layers": layer + 1, "layer_types": config.layer_types[: layer + 1]}


def split_directions(d_sae: int) -> Any:
    """Unit vectors near the encoder directions of the shipped SAE, float32 [F, D]."""
    import torch
    from safetensors.torch import load_file

    from ray_jobs.demo import SAE_DIR

    trained_FD = load_file(SAE_DIR / "sae_weights.safetensors")["W_enc"].T.float()
    trained_FD = trained_FD / trained_FD.norm(dim=1, keepdim=True)
    made_FD = trained_FD[torch.arange(d_sae) % len(trained_FD)]
    noise_FD = torch.randn(made_FD.shape, generator=torch.Generator().manual_seed(d_sae))
    made_FD = COSINE * made_FD + (1 - COSINE**2) ** 0.5 * noise_FD / noise_FD.norm(dim=1, keepdim=True)
    return made_FD / made_FD.norm(dim=1, keepdim=True)


def random_directions(x_ND: Any, d_sae: int) -> Any:
    """Unit vectors that are random in the stream with each dimension scaled to variance 1, float32 [F, D]."""
    import torch

    W_FD = torch.randn(d_sae, x_ND.shape[1], generator=torch.Generator().manual_seed(d_sae)) / x_ND.std(0)
    return W_FD / W_FD.norm(dim=1, keepdim=True)


def write_sae(folder: Path, x_ND: Any, W_FD: Any, layer: int, l0: float = L0, model_name: str = MODEL_NAME) -> None:
    """Write an SAE for activations like `x_ND` into an empty directory, through sae-lens.

    Args:
        folder: Where to.
        x_ND: Activations of the layer, float32 [N, D].
        W_FD: Encoder directions, unit vectors, float32 [F, D].
        layer: The layer, for the metadata.
        l0: Features that fire on a token, on average.
        model_name: The model, for the metadata.
    """
    import torch
    from sae_lens import SAE

    d_sae, mean_D = len(W_FD), x_ND.mean(0)
    generator = torch.Generator().manual_seed(d_sae)
    sae = SAE.from_dict(
        {
            "architecture": "jumprelu",
            "d_in": x_ND.shape[1],
            "d_sae": d_sae,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": False,
            "metadata": {
                "model_name": model_name,
                "hook_name": f"blocks.{layer}.hook_resid_post",
                "prepend_bos": True,
            },
        }
    )
    threshold_F = _thresholds((x_ND - mean_D), W_FD, _frequencies(d_sae, l0, generator))
    with torch.no_grad():
        # the same features whatever is added to bias and threshold alike; a JumpReLU threshold must not be negative
        lift_F = (1.0 - threshold_F).clamp(min=0)
        sae.W_enc.copy_(W_FD.T)
        sae.W_dec.copy_(W_FD)
        sae.b_enc.copy_(lift_F - W_FD @ mean_D)
        sae.threshold.copy_(threshold_F + lift_F)
        sae.b_dec.copy_(mean_D)
    sae.save_model(folder)


def _frequencies(d_sae: int, l0: float, generator: Any) -> Any:
    """How often each feature fires [F]: log-normal, `l0` of them on a token."""
    import torch

    share_F = torch.exp(SPREAD * torch.randn(d_sae, generator=generator))
    for _ in range(50):  # what is cut off at the top is handed to the others
        share_F = (share_F * (l0 / share_F.sum())).clamp(max=MOST_FREQUENT)
    return share_F


def _thresholds(x_ND: Any, W_FD: Any, share_F: Any) -> Any:
    """The pre-activation that each feature exceeds on its share of the tokens, at least on one of them; [F]."""
    import torch

    chunks: Sequence[Any] = [
        (W_CD @ x_ND.T).sort(dim=1, descending=True).values.gather(1, rank_C[:, None])[:, 0]
        for W_CD, rank_C in zip(
            W_FD.split(CHUNK), (share_F * len(x_ND)).round().long().clamp(min=1).split(CHUNK), strict=True
        )
    ]
    return torch.cat(list(chunks))


@contextmanager
def _built(path: Path) -> Iterator[Path]:
    """An empty directory that gets its name only when its content is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".building-", dir=path.parent))
    try:
        yield folder
        folder.rename(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
