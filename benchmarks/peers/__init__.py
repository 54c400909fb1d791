"""The ways to get pooled SAE features out of text that are compared, ours among them; one module each.

A peer is loaded and has met a few documents before the clock starts (`open`), goes from the corpus file to something on
disk under the clock (`run`), and afterwards says which features it found (`features`), read from what it wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Sae:
    """One SAE directory in sae-lens' format and the layer that it reads."""

    path: str
    layer: int


@dataclass(frozen=True)
class Setup:
    """What every peer is given.

    Attributes:
        model: The model as a Hugging Face directory.
        model_name: What the model is called.
        saes: The SAEs; peers other than ours take the first.
        max_tokens: Positions of a document that are fed, beginning-of-sequence included; the rest is cut off.
        threads: Threads of torch; ours starts so many workers of one thread instead.
        batch: Overrides a peer's batch size (documents, or positions for the careful user).
        dtype: Overrides what the careful user's peer and ours compute in; others use float32 as they do by themselves.
    """

    model: str
    model_name: str
    saes: tuple[Sae, ...]
    max_tokens: int
    threads: int
    batch: int | None = None
    dtype: str | None = None

    @property
    def sae(self) -> Sae:
        """The SAE of peers that take one."""
        return self.saes[0]


@dataclass(frozen=True)
class Task:
    """Files of one run.

    Attributes:
        corpus: JSONL with `id` and `text`.
        rehearsal: A few documents for warming up, likewise.
        out: An empty directory for what the run writes.
        scratch: An empty directory for everything else.
    """

    corpus: Path
    rehearsal: Path
    out: Path
    scratch: Path


class Peer(Protocol):
    """One way to extract features."""

    def open(self, setup: Setup, task: Task) -> None:
        """Load everything and run the rehearsal."""

    def run(self) -> int | None:
        """Do the task; the positions that went through the model, padding and BOS included, where that is known."""

    def features(self) -> Sequence[np.ndarray]:
        """Indices of the features above zero of each document, sorted."""

    def close(self) -> None:
        """Stop what `open` started."""


PEERS = {
    "a": ("reference", "Reference", "reference code, as its configurations run it"),
    "a2": ("reference", "ReferenceDense", "reference code, storing dense activations"),
    "b": ("saelens", "SaeLens", "sae-lens, as documented"),
    "c": ("interpembed", "InterpEmbed", "interp-embed 0.1.0"),
    "d": ("careful", "Careful", "careful use of transformers"),
    "ours": ("ours", "Ours", "Sparsemill"),
    "command": ("ours", "Command", "`sparsemill extract`, everything included"),
}
"""Key -> module, class, and what the table calls it."""


def make_peer(key: str) -> Peer:
    """A peer by its key."""
    module, name, _ = PEERS[key]
    made: Peer = getattr(import_module(f"benchmarks.peers.{module}"), name)()
    return made


class SingleProcess:
    """What peers that run in one process have in common: `load` once, then `extract` from corpus file to directory."""

    _task: Task

    def open(self, setup: Setup, task: Task) -> None:
        """Load, and run the rehearsal."""
        import torch

        torch.set_num_threads(setup.threads)
        self._task = task
        with torch.no_grad():
            self.load(setup)
            self.extract(task.rehearsal, task.scratch)

    def run(self) -> int | None:
        """Run the corpus."""
        import torch

        with torch.no_grad():
            return self.extract(self._task.corpus, self._task.out)

    def features(self) -> Sequence[np.ndarray]:
        """Of the maxima in `features.npz`."""
        import numpy as np

        with np.load(self._task.out / "features.npz") as arrays:
            return [np.flatnonzero(row > 0) for row in arrays["max"]]

    def close(self) -> None:
        """Nothing to stop."""

    def load(self, setup: Setup) -> None:
        """Load model, tokenizer and SAE."""
        raise NotImplementedError

    def extract(self, corpus: Path, out: Path) -> int:
        """From a corpus file to files in `out`; positions that went through the model."""
        raise NotImplementedError


def load_sae(setup: Setup) -> Any:
    """The first SAE, by sae-lens, in float32."""
    from sae_lens import SAE

    return SAE.load_from_disk(setup.sae.path, device="cpu", dtype="float32")
