"""The best that a careful user of transformers and sae-lens writes in an afternoon.

bfloat16 throughout (float32 where the CPU does not multiply in bfloat16), the layers behind the SAE's and the LM head
cut off through the config, documents sorted by length and batched under a budget of positions, right-padded with an
attention mask, BOS not pooled, one compressed sparse matrix written at the end. Of what was tried on 2 cores of an
AMD EPYC with avx512_bf16, this was the fastest: see README.md for budgets, attention implementations, and the SAE in
bfloat16 against float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.corpus import read_jsonl
from benchmarks.peers import Setup, SingleProcess, load_sae

POSITIONS = 1024


class Careful(SingleProcess):
    """Sorted batches through a truncated model."""

    attention = "eager"

    def load(self, setup: Setup) -> None:
        """The truncated model."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        from benchmarks.weights import truncated
        from ray_jobs.backbone.backbone import default_dtype

        self._setup = setup
        dtype = getattr(torch, setup.dtype or default_dtype("cpu"))
        self._tokenizer = AutoTokenizer.from_pretrained(setup.model)
        self._model = AutoModel.from_pretrained(
            setup.model,
            **truncated(Path(setup.model), setup.sae.layer),
            dtype=dtype,
            attn_implementation=self.attention,
        )
        self._model.norm = torch.nn.Identity()  # so that the last hidden state is the layer's output
        self._sae = load_sae(setup).to(dtype)

    def extract(self, corpus: Path, out: Path) -> int:
        """Tokenise, sort, run, pool, write."""
        import scipy.sparse
        import torch

        texts = read_jsonl(corpus)
        ids = self._tokenizer(texts, truncation=True, max_length=self._setup.max_tokens)["input_ids"]
        rows: list[scipy.sparse.csr_array | None] = [None] * len(ids)
        processed = 0
        for members in self._batches([len(row) for row in ids]):
            longest = max(len(ids[member]) for member in members)
            ids_BT = torch.zeros(len(members), longest, dtype=torch.long)
            mask_BT = torch.zeros_like(ids_BT)
            for row, member in enumerate(members):
                ids_BT[row, : len(ids[member])] = torch.tensor(ids[member])
                mask_BT[row, : len(ids[member])] = 1
            hidden_BTD = self._model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).last_hidden_state
            mask_BT[:, 0] = 0
            acts_NF = self._sae.encode(hidden_BTD[mask_BT.bool()])
            for member, acts_TF in zip(members, acts_NF.split(mask_BT.sum(1).tolist()), strict=True):
                rows[member] = scipy.sparse.csr_array(acts_TF.amax(dim=0).float().numpy()[None])
            processed += ids_BT.numel()
        scipy.sparse.save_npz(out / "features.npz", scipy.sparse.vstack(rows, format="csr"))
        return processed

    def features(self) -> Sequence[np.ndarray]:
        """From the sparse matrix."""
        import scipy.sparse

        matrix = scipy.sparse.load_npz(self._task.out / "features.npz")
        return np.split(matrix.indices, matrix.indptr[1:-1])

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Documents sorted by length, longest first, as many as fit into the budget."""
        budget = self._setup.batch or POSITIONS
        batch: list[int] = []
        for member in np.argsort(lengths, kind="stable")[::-1].tolist():
            if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
                yield batch
                batch = []
            batch.append(member)
        yield batch
