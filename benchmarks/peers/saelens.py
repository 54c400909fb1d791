"""sae-lens as its usage guide teaches it for Gemma 3: `SAETransformerBridge` and `run_with_cache_with_saes`.

The guide sends users of Gemma 3 to the bridge (`HookedSAETransformer` is for models that transformer-lens converts), in
float32, one text at a time: `model.run_with_cache_with_saes(text, saes=[sae])`, and the activations are taken out of
the cache. Nothing in that section restricts the cache or stops the model early, so nothing does here. The bridge is
given the model already loaded, because it would otherwise ask the hub. What the guide leaves to the user is done in the
plainest way: maximum over the tokens behind BOS, rows stacked, one compressed file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.corpus import read_jsonl
from benchmarks.peers import Setup, SingleProcess, load_sae


class SaeLens(SingleProcess):
    """One document at a time through the bridge."""

    def load(self, setup: Setup) -> None:
        """The bridge around the whole model in float32, as it loads it itself."""
        import torch
        from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._setup = setup
        model = AutoModelForCausalLM.from_pretrained(setup.model, dtype=torch.float32, attn_implementation="eager")
        self._model = SAETransformerBridge.boot_transformers(
            f"google/{setup.model_name}",
            hf_model=model,
            tokenizer=AutoTokenizer.from_pretrained(setup.model),
            device="cpu",
        )
        self._sae = load_sae(setup)

    def extract(self, corpus: Path, out: Path) -> int:
        """All documents, in order."""
        rows = []
        processed = 0
        hook = self._model.get_sae_hook_name(self._sae)
        for text in read_jsonl(corpus):
            ids_1T = self._model.to_tokens(text)[:, : self._setup.max_tokens]
            _, cache = self._model.run_with_cache_with_saes(ids_1T, saes=[self._sae])
            rows.append(cache[hook][0, 1:].amax(dim=0).numpy())
            processed += ids_1T.numel()
        np.savez_compressed(out / "features.npz", max=np.stack(rows))
        return processed
