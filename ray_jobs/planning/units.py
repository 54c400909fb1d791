"""Cut the corpus into units: contiguous ranges of rows, the grain of work, commit, retry and resume.

The cut depends on the corpus, the mean length of a document and the kind of device, and on nothing that may differ
between two runs of one job (how many workers there are, how fast they are). A unit is worth a minute of work or more on
a GPU, less on a CPU: long enough to hide its overhead, short enough to be done again without regret.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ray_jobs.corpus.scanned import CorpusScan
from ray_jobs.corpus.slices import Slice, slices

UNIT_TOKENS = {"cpu": 2**17, "cuda": 2**23}  # about 40 s at 3,000 tokens/s, 40 to 160 s at 50,000 to 200,000
_MIN_DOCUMENTS = 32  # sorting by length needs some to choose from ...
_MIN_DOCUMENTS_TOKENS = 4  # ... unless they are so long that this many times the tokens are reached first
_MAX_DOCUMENTS = 2**16  # bounds the rows of a part however short the documents are
_MAX_TEXT_BYTES = 2**28  # of raw text in a worker's memory; far more than is fed where documents are truncated
_MIN_UNITS = 32  # of a small corpus too, so that workers can share it and end at about the same time


@dataclass(frozen=True)
class Unit:
    """The global rows `[start, stop)` of the corpus and where they lie.

    Attributes:
        index: Position in the plan, from 0; the number of its part file.
    """

    index: int
    start: int
    stop: int
    slices: tuple[Slice, ...]

    @property
    def rows(self) -> int:
        """Documents in the unit."""
        return self.stop - self.start


def plan_units(
    scanned: CorpusScan, documents_per_unit: int | None, mean_tokens: float, device: str = "cpu"
) -> tuple[Unit, ...]:
    """Cut a corpus into units that cover each row exactly once, in order.

    Args:
        scanned: The corpus.
        documents_per_unit: A fixed size (the last unit may be smaller); None chooses one and cuts evenly.
        mean_tokens: Tokens that a document costs on average, after truncation.
        device: "cpu" or "cuda"; decides how many tokens a unit should have.
    """
    rows = scanned.rows
    if documents_per_unit is not None:
        bounds = [*range(0, rows, documents_per_unit), rows]
    else:
        n_units = max(-(-rows // _documents(scanned, mean_tokens, device)), min(_MIN_UNITS, -(-rows // _MIN_DOCUMENTS)))
        bounds = [rows * i // n_units for i in range(n_units + 1)]
    return tuple(
        Unit(index, start, stop, slices(scanned, start, stop)) for index, (start, stop) in enumerate(pairwise(bounds))
    )


def _documents(scanned: CorpusScan, mean_tokens: float, device: str) -> int:
    tokens = UNIT_TOKENS.get(device, UNIT_TOKENS["cuda"])
    mean = max(mean_tokens, 1.0)
    documents = max(tokens / mean, min(_MIN_DOCUMENTS, _MIN_DOCUMENTS_TOKENS * tokens / mean))
    return max(1, int(min(documents, _MAX_DOCUMENTS, _MAX_TEXT_BYTES / max(scanned.mean_text_bytes, 1.0))))
