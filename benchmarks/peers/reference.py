"""The reference code's way (MOSAIC, the code behind arXiv 2502.11367), written anew from reading it.

What is done, in its order: the whole model in float32 with its LM head, in transformers' default attention; documents
in corpus order, padded to the longest of their batch; `output_hidden_states=True`, one entry of which is kept; one
`np.savez_compressed` a document; in a second pass every file is read back and pooled densely, and all pooled rows are
stacked into one compressed file.

`Reference` is what its configuration files run (`act_only: True`): the files hold hidden states, padding included, and
the SAE encodes them, one document at a time, in the second pass. `ReferenceDense` is its other mode: the SAE encodes
*and decodes* in the first pass (it logs the reconstruction error) and the files hold the dense [T, F] activations too.

Batches are of 10 documents as in its `config.yaml`. 32, the default of its argument, would take 34 GB here for the
logits of one batch alone.

Put right, because that costs no time and its features could not be compared otherwise: the hidden state behind the
layer is taken (not the one before it), the attention mask is passed, neither BOS nor padding is pooled, and nothing is
cast to float16, which the residual stream of Gemma 3 overflows. Left out, in its favour: collecting garbage after
every batch, progress bars, the metadata CSV, and the pool of processes that reads the files. It stores one pooling a
run; here both maximum and sum are stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus import read_jsonl
from benchmarks.peers import Setup, SingleProcess, load_sae

BATCH = 10


class Reference(SingleProcess):
    """Hidden states to disk, then SAE and pooling."""

    dense = False

    def load(self, setup: Setup) -> None:
        """The whole model in float32."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._setup = setup
        self._tokenizer = AutoTokenizer.from_pretrained(setup.model)
        self._model = AutoModelForCausalLM.from_pretrained(setup.model, dtype=torch.float32).eval()
        self._sae = load_sae(setup)

    def extract(self, corpus: Path, out: Path) -> int:
        """Both passes."""
        texts = read_jsonl(corpus)
        content: list[np.ndarray] = []
        processed = 0
        batch = self._setup.batch or BATCH
        for start in range(0, len(texts), batch):
            processed += self._first_pass(texts[start : start + batch], out, content)
        pooled = [self._second_pass(out / f"sample_{number}.npz", rows) for number, rows in enumerate(content)]
        np.savez_compressed(
            out / "features.npz", max=np.stack([row[0] for row in pooled]), sum=np.stack([row[1] for row in pooled])
        )
        return processed

    def _first_pass(self, texts: list[str], out: Path, content: list[np.ndarray]) -> int:
        """Run a batch and write a file for each document; where its content stands is appended to `content`."""
        inputs = self._tokenizer(
            texts, return_tensors="pt", padding=True, truncation=True, max_length=self._setup.max_tokens
        )
        outputs = self._model(**inputs, output_hidden_states=True, return_dict=True, use_cache=False)
        hidden_BTD = outputs.hidden_states[self._setup.sae.layer + 1]
        del outputs
        for hidden_TD, mask_T in zip(hidden_BTD, inputs["attention_mask"], strict=True):
            arrays = {"hidden_state": hidden_TD.numpy()}
            if self.dense:
                arrays["sae_acts"] = self._encode_and_decode(hidden_TD[None]).numpy()
            np.savez_compressed(out / f"sample_{len(content)}.npz", **arrays)
            content.append(np.flatnonzero(mask_T.numpy())[1:])  # the first is BOS
        return int(inputs["input_ids"].numel())

    def _encode_and_decode(self, hidden_1TD: Any) -> Any:
        acts_1TF = self._sae.encode(hidden_1TD)
        error = ((self._sae.decode(acts_1TF) - hidden_1TD) ** 2).mean()
        float(1 - error / hidden_1TD.var())  # which it writes into a table
        return acts_1TF

    def _second_pass(self, file: Path, content: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maximum and sum [F] of one document."""
        import torch

        with np.load(file) as arrays:
            if self.dense:
                acts_TF = arrays["sae_acts"][0]
            else:
                acts_TF = self._sae.encode(torch.from_numpy(arrays["hidden_state"])).numpy()
        return acts_TF[content].max(axis=0), acts_TF[content].sum(axis=0)


class ReferenceDense(Reference):
    """Dense activations to disk as well."""

    dense = True
