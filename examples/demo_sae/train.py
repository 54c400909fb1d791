"""Train the demo SAE: a batch-top-k SAE on layer 9 of Gemma 3 270M, with sae-lens, on the text of corpus.py.

    python examples/demo_sae/train.py --cache ~/.cache/sparsemill/demo-sae --out ray_jobs/demo/sae

Recipe: activations centred and scaled to unit mean square; decoder rows of unit norm with the encoder their
transpose; batch-top-k; Adam with linear warm-up and a linear decay over the last third; features silent for a while
are revived by sae-lens' auxiliary loss. The decoder starts on random directions: data directions all share the one
huge residual dimension and diverge. sae-lens saves the result as a JumpReLU SAE; it is rewritten in bfloat16 for
shipping, and only then its threshold is fixed, on training tokens, so that the mean L0 is what was asked for.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import activations
import corpus
import torch

SEED = 20_26


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the corpus."""

    d_sae: int = 4096
    k: float = 62.0
    batch_tokens: int = 4096
    steps: int = 1500
    learning_rate: float = 8e-4
    warm_up_steps: int = 50
    decay_share: float = 0.35
    aux_loss_coefficient: float = 1 / 32
    dead_after_steps: int = 60
    seed: int = SEED


def collect(cache: Path, splits: tuple[str, ...] = ("train", "heldout")) -> None:
    """Write the activations of every source and split that the cache does not hold yet."""
    folder = cache / "activations"
    folder.mkdir(parents=True, exist_ok=True)
    if all((folder / f"{name}-{lang}-{split}.bf16").exists() for name, lang in corpus.BUDGETS for split in splits):
        return
    model, tokenizer = activations.load_model(cache)
    for source in corpus.SOURCES:
        texts = corpus.documents(source, cache / "packages")
        for language, found in texts.items():
            n_tokens = 1000 * corpus.BUDGETS[source.name, language]
            for split in splits:
                path = folder / f"{source.name}-{language}-{split}.bf16"
                if not path.exists():
                    chosen = (t for t in found if corpus.is_held_out(t) == (split == "heldout"))
                    activations.write_activations(
                        path,
                        chosen,
                        int(n_tokens * (corpus.HELD_OUT_SHARE if split == "heldout" else 1)),
                        model,
                        tokenizer,
                    )


def load_split(cache: Path, split: str) -> torch.Tensor:
    """All activations of a split, [tokens, D_MODEL] bfloat16, in memory."""
    parts = [activations.read_activations(p) for p in sorted((cache / "activations").glob(f"*-{split}.bf16"))]
    return torch.cat(parts)


def batches(acts_ND: torch.Tensor, recipe: Recipe) -> Iterator[torch.Tensor]:
    """Endless float32 batches, reshuffled each epoch."""
    generator = torch.Generator().manual_seed(recipe.seed)
    while True:
        order = torch.randperm(len(acts_ND), generator=generator)
        for start in range(0, len(order) - recipe.batch_tokens + 1, recipe.batch_tokens):
            yield acts_ND[order[start : start + recipe.batch_tokens]].float()


class SampledBatchTopK(torch.nn.Module):
    """Batch-top-k whose cut is read from a 1/SAMPLE share of the pre-activations.

    The exact k-th value of 17 million numbers takes a CPU longer than all the GEMMs of a step together; that of a
    million of them is as often above it as below.
    """

    SAMPLE = 17  # coprime to d_sae: the sample walks over all features and all tokens

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = k

    def forward(self, pre_NF: torch.Tensor) -> torch.Tensor:
        sample = pre_NF.detach().flatten()[:: self.SAMPLE]
        kept = int(self.k / pre_NF.shape[-1] * sample.numel())
        cut = sample.kthvalue(sample.numel() - kept).values.clamp(min=0)
        return torch.where(pre_NF > cut, pre_NF, 0)


def train(acts_ND: torch.Tensor, recipe: Recipe):
    """A trained sae-lens BatchTopK SAE whose scaling is folded into its weights."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(recipe.seed)
    d_in = acts_ND.shape[1]
    sample_ND = next(batches(acts_ND, Recipe(batch_tokens=65_536, seed=recipe.seed + 1)))
    mean_D = sample_ND.mean(0)
    scale = 1.0 / (sample_ND - mean_D).pow(2).mean().sqrt().item()
    sae = BatchTopKTrainingSAE(
        BatchTopKTrainingSAEConfig(
            d_in=d_in,
            d_sae=recipe.d_sae,
            k=recipe.k,
            aux_loss_coefficient=recipe.aux_loss_coefficient,
            apply_b_dec_to_input=True,
            normalize_activations="expected_average_only_in",
            rescale_acts_by_decoder_norm=True,
            dtype="float32",
            device="cpu",
        )
    )
    sae.activation_fn = SampledBatchTopK(recipe.k)
    with torch.no_grad():
        directions_FD = torch.randn(recipe.d_sae, d_in)
        sae.W_dec.copy_(directions_FD / directions_FD.norm(dim=1, keepdim=True))
        sae.W_enc.copy_(sae.W_dec.T)
        sae.b_dec.copy_(mean_D * scale)
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=recipe.steps * recipe.batch_tokens,
            train_batch_size_samples=recipe.batch_tokens,
            lr=recipe.learning_rate,
            lr_end=0.0,
            lr_warm_up_steps=recipe.warm_up_steps,
            lr_decay_steps=int(recipe.steps * recipe.decay_share),
            adam_beta1=0.9,
            adam_beta2=0.999,
            autocast=True,
            dead_feature_window=recipe.dead_after_steps,
            device="cpu",
        ),
        sae=sae,
        data_provider=batches(acts_ND, recipe),
    )
    trainer.activation_scaler.scaling_factor = scale
    return trainer.fit()


@torch.no_grad()
def save(sae, acts_ND: torch.Tensor, recipe: Recipe, out: Path) -> None:
    """Write the SAE in sae-lens' inference format, bfloat16, its threshold set for a mean L0 of `recipe.k`."""
    import sae_lens
    from safetensors.torch import load_file, save_file

    out.mkdir(parents=True, exist_ok=True)
    sae.cfg.metadata.model_name = "google/gemma-3-270m"
    sae.cfg.metadata.hook_name = f"blocks.{activations.HOOK_LAYER}.hook_resid_post"
    sae.cfg.metadata.hf_hook_name = f"model.layers.{activations.HOOK_LAYER}.output"
    sae.cfg.metadata.prepend_bos = True
    sae.cfg.metadata.context_size = activations.ROW_TOKENS
    sae.cfg.metadata.training_recipe = asdict(recipe)
    sae.save_inference_model(str(out))
    weights = out / "sae_weights.safetensors"
    state = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(weights).items()}
    save_file(state, weights)
    shipped = sae_lens.SAE.load_from_disk(str(out), device="cpu", dtype="float32")
    state["threshold"] = torch.full_like(state["threshold"], calibrated_threshold(shipped, acts_ND, recipe.k))
    save_file(state, weights)
    cfg = json.loads((out / "cfg.json").read_text())
    cfg["dtype"] = "bfloat16"
    (out / "cfg.json").write_text(json.dumps(cfg, indent=1, sort_keys=True) + "\n")


def calibrated_threshold(sae, acts_ND: torch.Tensor, l0: float) -> float:
    """The JumpReLU threshold at which `sae` has a mean L0 of `l0` on a sample of `acts_ND`."""
    sample_ND = next(batches(acts_ND, Recipe(batch_tokens=16_384, seed=SEED + 2)))
    pre_NF = sae.process_sae_in(sample_ND) @ sae.W_enc + sae.b_enc
    return torch.topk(pre_NF.flatten(), int(l0 * len(sample_ND))).values[-1].item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/sparsemill/demo-sae")
    parser.add_argument("--out", type=Path, default=Path("ray_jobs/demo/sae"))
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--k", type=float, default=Recipe.k)
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--activations-only", action="store_true", help="stop before training")
    args = parser.parse_args()
    collect(args.cache)
    if args.activations_only:
        return
    recipe = Recipe(steps=args.steps, k=args.k, learning_rate=args.learning_rate)
    acts_ND = load_split(args.cache, "train")
    print(f"{len(acts_ND):,} distinct tokens, {recipe.steps} steps of {recipe.batch_tokens}", flush=True)
    began = time.monotonic()
    sae = train(acts_ND, recipe)
    save(sae, acts_ND, recipe, args.out)
    print(f"trained in {(time.monotonic() - began) / 60:.1f} minutes; wrote {args.out}")


if __name__ == "__main__":
    main()
