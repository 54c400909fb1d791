"""Measure a demo SAE on the held-out text: variance explained, L0, dead features, cross-entropy recovered.

    python examples/demo_sae/evaluate.py --sae ray_jobs/demo/sae --cache ~/.cache/sparsemill/demo-sae

Variance explained is 1 - sum |x - x^|^2 / sum |x - mean|^2 over all held-out tokens and dimensions. One residual
dimension of this model carries most of the variance, so the same figure without it is printed beside it.
Cross-entropy recovered is (ablated - spliced) / (ablated - clean): the next-token loss with the reconstruction in
place of the layer's output at every content token, between the clean loss and the loss with that output zeroed.
"Without the huge dimension" keeps its true value in both. A feature is dead when it fires on no held-out token.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import activations
import corpus
import torch
import train

CE_ROWS_PER_LANGUAGE = 3


@torch.no_grad()
def reconstruction_quality(sae, acts_ND: torch.Tensor) -> dict[str, float]:
    """Variance explained (with and without the dimension of largest variance), mean L0 and share of dead features."""
    mean_D = acts_ND.double().mean(0).float()
    residual_D = torch.zeros(acts_ND.shape[1], dtype=torch.float64)
    total_D = torch.zeros_like(residual_D)
    fired_F = torch.zeros(sae.cfg.d_sae, dtype=torch.long)
    for chunk_ND in acts_ND.split(4096):
        x_ND = chunk_ND.float()
        features_NF = sae.encode(x_ND)
        residual_D += (x_ND - sae.decode(features_NF)).pow(2).sum(0).double()
        total_D += (x_ND - mean_D).pow(2).sum(0).double()
        fired_F += (features_NF > 0).sum(0)
    huge = int(total_D.argmax())
    others = torch.arange(len(total_D)) != huge
    return {
        "held_out_tokens": len(acts_ND),
        "variance_explained": 1 - (residual_D.sum() / total_D.sum()).item(),
        "huge_dimension": huge,
        "huge_dimension_share_of_variance": (total_D[huge] / total_D.sum()).item(),
        "variance_explained_without_huge_dimension": 1 - (residual_D[others].sum() / total_D[others].sum()).item(),
        "l0": fired_F.sum().item() / len(acts_ND),
        "d_sae": sae.cfg.d_sae,
        "dead_share": (fired_F == 0).double().mean().item(),
    }


@torch.no_grad()
def cross_entropy_recovered(sae, cache: Path, huge: int) -> dict[str, float]:
    """Next-token losses of the whole model, clean, spliced and ablated, on held-out rows of every language."""
    model, tokenizer = activations.load_model(cache)
    rows: list[list[int]] = []
    for source in corpus.SOURCES:
        for found in corpus.documents(source, cache / "packages").values():
            texts = (text for text in found if corpus.is_held_out(text))
            rows += activations.rows_of_tokens(texts, tokenizer, CE_ROWS_PER_LANGUAGE * activations.ROW_TOKENS)[
                :CE_ROWS_PER_LANGUAGE
            ]
    edits = {
        "clean": lambda x: x,
        "spliced": lambda x: sae.decode(sae.encode(x)),
        "ablated": torch.zeros_like,
        "spliced_beside_huge": lambda x: keep_dimension(sae.decode(sae.encode(x)), x, huge),
        "ablated_beside_huge": lambda x: keep_dimension(torch.zeros_like(x), x, huge),
    }
    losses, n_targets = dict.fromkeys(edits, 0.0), 0
    for start in range(0, len(rows), 2):
        for ids_BT, mask_BT in activations.batches_of_rows(rows[start : start + 2], tokenizer.pad_token_id):
            # predict content tokens from the second on: the edit touches every position but BOS
            targets_BT = torch.where(mask_BT[:, 2:].bool(), ids_BT[:, 2:], -100)
            n_targets += int((targets_BT >= 0).sum())
            for name, edit in edits.items():

                def hook(_module, _inputs, output, edit=edit):
                    hidden = output if isinstance(output, torch.Tensor) else output[0]
                    edited = hidden.clone()
                    edited[:, 1:] = edit(hidden[:, 1:].float()).to(hidden.dtype)
                    return edited if isinstance(output, torch.Tensor) else (edited, *output[1:])

                handle = model.model.layers[activations.HOOK_LAYER].register_forward_hook(hook)
                logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits[:, 1:-1]
                handle.remove()
                loss = torch.nn.functional.cross_entropy(
                    logits_BTV.float().flatten(0, 1), targets_BT.flatten(), ignore_index=-100, reduction="sum"
                )
                losses[name] += loss.item()
    mean = {name: total / n_targets for name, total in losses.items()}
    return {
        "predicted_tokens": n_targets,
        **{f"cross_entropy_{name}": value for name, value in mean.items()},
        "cross_entropy_recovered": (mean["ablated"] - mean["spliced"]) / (mean["ablated"] - mean["clean"]),
        "cross_entropy_recovered_without_huge_dimension": (mean["ablated_beside_huge"] - mean["spliced_beside_huge"])
        / (mean["ablated_beside_huge"] - mean["clean"]),
    }


def keep_dimension(edited: torch.Tensor, original: torch.Tensor, dimension: int) -> torch.Tensor:
    edited = edited.clone()
    edited[..., dimension] = original[..., dimension]
    return edited


def main() -> None:
    import sae_lens

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sae", type=Path, default=Path("ray_jobs/demo/sae"))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/sparsemill/demo-sae")
    parser.add_argument("--no-cross-entropy", action="store_true", help="skip the slower half")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    train.collect(args.cache, splits=("heldout",))
    sae = sae_lens.SAE.load_from_disk(str(args.sae), device="cpu", dtype="float32")
    figures = reconstruction_quality(sae, train.load_split(args.cache, "heldout"))
    if not args.no_cross_entropy:
        figures |= cross_entropy_recovered(sae, args.cache, int(figures["huge_dimension"]))
    for name, value in figures.items():
        print(f"{name:<48} {value:>12,.4f}" if isinstance(value, float) else f"{name:<48} {value:>12,}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
