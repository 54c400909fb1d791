"""interp-embed 0.1.0, the package itself: its `Dataset` over its `LocalSAE`.

Nothing of it is changed but where model and SAE come from: `LocalSAE` would ask the hub for both, so its `load_models`
is overridden and hands it the model and the SAE that are loaded already, converted to transformer-lens'
`HookedTransformer` as it does itself. Batches in corpus order, padded to the longest; the whole model in float32 with
every activation cached; a sparse matrix of each document's activations, pooled densely (maximum and sum); everything
pickled again after every fifth batch. Batches are of 4 documents: with its default of 8, a cache of every activation
and all logits is more than a machine with 24 GB has. It cuts documents at the tokenizer's limit, which is set to the
same length as for the others. It pools BOS as well; for the comparison of features, BOS is taken out afterwards.

The package is not among our dependencies: it goes into a folder of the cache, with the clients of remote models that
its import asks for, and finds everything else (torch, transformers, sae-lens, ...) in the versions that all peers use.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus import read_jsonl
from benchmarks.peers import Setup, SingleProcess, load_sae
from featurestore.errors import JobFailed
from featurestore.storage.cache import cache_path

PACKAGES = ("interp-embed==0.1.0", "goodfire==0.3.4", "openai==3.54.0", "jiter==0.19.0", "distro==1.9.0")


BATCH = 4


class InterpEmbed(SingleProcess):
    """The package with its defaults."""

    def load(self, setup: Setup) -> None:
        """Install the package where that has not been done, and load its model."""
        _make_importable()
        self._setup = setup
        self._sae = _offline_sae(setup)
        self._sae.load()
        self._sae.destroy = lambda: None  # it would unload everything after the rehearsal

    def extract(self, corpus: Path, out: Path) -> int:
        """Its constructor does everything."""
        import pandas as pd
        from interp_embed import Dataset

        texts = read_jsonl(corpus)
        batch = self._setup.batch or BATCH
        self._dataset = Dataset(
            data=pd.DataFrame({"text": texts}), sae=self._sae, save_path=str(out / "dataset.pkl"), batch_size=batch
        )
        lengths = [row.activations.shape[0] for row in self._dataset.rows]
        batches = [lengths[start : start + batch] for start in range(0, len(lengths), batch)]
        return sum(len(part) * max(part) for part in batches)

    def features(self) -> Sequence[np.ndarray]:
        """From the rows in memory, which are what it pickled (a pickle is not opened here), without BOS."""
        return [np.unique(row.activations[1:].indices) for row in self._dataset.rows]


def _offline_sae(setup: Setup) -> Any:
    import torch
    from interp_embed.saes import LocalSAE
    from transformer_lens import HookedTransformer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    class Offline(LocalSAE):  # type: ignore[misc, unused-ignore]
        def load_models(self) -> None:
            self.sae = load_sae(setup)
            model = AutoModelForCausalLM.from_pretrained(setup.model, dtype=torch.float32, attn_implementation="eager")
            tokenizer: Any = AutoTokenizer.from_pretrained(setup.model)
            self.model = HookedTransformer.from_pretrained(
                f"google/{setup.model_name}", hf_model=model, tokenizer=tokenizer, device="cpu"
            )
            tokenizer = self.model.tokenizer
            tokenizer.model_max_length = setup.max_tokens
            self.tokenizer = tokenizer

    return Offline(device="cpu")


def _make_importable() -> None:
    folder = cache_path("benchmarks") / "interp-embed"
    if not folder.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
        if subprocess.run([*pip, *PACKAGES]).returncode:
            raise JobFailed("interp-embed could not be installed from PyPI; check the network, or leave out peer c")
    sys.path.append(str(folder))
