"""Running peers in turns: round after round, each in a process of its own, one at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus import write_jsonl
from benchmarks.peers import PEERS, Setup
from featurestore.errors import JobFailed

ROOT = Path(__file__).parents[1]
REHEARSED_DOCUMENTS = 4


@dataclass(frozen=True)
class Case:
    """A peer and what it is given."""

    peer: str
    setup: Setup


@dataclass
class Runs:
    """All runs of one case.

    Attributes:
        results: What each run reported: seconds, processed, bytes, and facts of its own.
        features: Indices found in each document, of the first run.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    features: list[np.ndarray] | None = None

    @property
    def seconds(self) -> float:
        """The median."""
        return float(np.median([result["seconds"] for result in self.results]))


def run_rounds(
    cases: Mapping[str, Case], repeats: int, texts: Sequence[str], work: Path | None = None
) -> dict[str, Runs]:
    """Run every case once a round.

    Args:
        cases: By name, in the order of a round.
        repeats: Rounds.
        texts: The corpus.
        work: Where the files of runs go; a temporary directory by default. They are removed after each run.

    Returns:
        Name of the case -> its runs.

    Raises:
        JobFailed: A peer failed; with the end of what it said.
    """
    runs = {name: Runs() for name in cases}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=work) as folder:
        corpus = write_jsonl(Path(folder) / "corpus.jsonl", texts)
        rehearsal = write_jsonl(Path(folder) / "rehearsal.jsonl", rehearsed(texts))
        for number in range(repeats):
            for name, case in cases.items():
                keep = number == 0
                result, features = _one_run(case, corpus, rehearsal, Path(folder) / "run", keep)
                runs[name].results.append(result)
                if keep:
                    runs[name].features = features
                what = f"round {number + 1} of {repeats}: {name} {PEERS[case.peer][2]}"
                print(f"  {what:<70} {result['seconds']:8.2f} s", file=sys.stderr, flush=True)
    return runs


def rehearsed(texts: Sequence[str]) -> list[str]:
    """Documents of middling length, for warming up."""
    first = max(0, (len(texts) - REHEARSED_DOCUMENTS) // 2)
    return sorted(texts, key=len)[first : first + REHEARSED_DOCUMENTS]


def _one_run(
    case: Case, corpus: Path, rehearsal: Path, folder: Path, keep_features: bool
) -> tuple[dict[str, Any], list[np.ndarray] | None]:
    folder.mkdir()
    try:
        spec = {**asdict(case), "corpus": str(corpus), "rehearsal": str(rehearsal), "keep_features": keep_features}
        (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        with (folder / "log").open("w+", encoding="utf-8", errors="replace") as log:
            command = [sys.executable, "-m", "benchmarks.child", str(folder / "spec.json")]
            code = subprocess.run(command, cwd=ROOT, env=_environment(case), stdout=log, stderr=log).returncode
            log.seek(0)
            if code:
                raise JobFailed(f"peer {case.peer} ({PEERS[case.peer][2]}) ended with {code}: {log.read()[-2000:]}")
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return result, _features(folder / "features.npz") if keep_features else None
    finally:
        shutil.rmtree(folder)


def _environment(case: Case) -> dict[str, str]:
    """No network, no noise, and all cores for peers of one process; Ray gives ours what it gives to every worker."""
    changes = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    if case.peer not in ("ours", "command"):
        changes |= {"OMP_NUM_THREADS": str(case.setup.threads), "TOKENIZERS_PARALLELISM": "true"}
    return {**os.environ, **changes}


def _features(path: Path) -> list[np.ndarray]:
    with np.load(path) as arrays:
        return np.split(arrays["indices"], arrays["indptr"][1:-1])
