"""One run of one peer in a process of its own: `python -m benchmarks.child SPEC.json`.

So no peer meets another one's memory, thread pools or patched modules. The result is a JSON file beside the
specification; the features found go into an .npz beside it.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import Sae, Setup, Task, make_peer


def main(spec_file: Path) -> None:
    """Run what a specification asks for."""
    spec = json.loads(spec_file.read_text(encoding="utf-8"))
    folder = spec_file.parent
    setup = Setup(**{**spec["setup"], "saes": tuple(Sae(**sae) for sae in spec["setup"]["saes"])})
    task = Task(Path(spec["corpus"]), Path(spec["rehearsal"]), folder / "out", folder / "scratch")
    task.out.mkdir()
    task.scratch.mkdir()
    peer = make_peer(spec["peer"])
    peer.open(setup, task)
    try:
        gc.collect()
        result = _timed(peer)
        if spec["keep_features"]:
            _save_features(folder / "features.npz", peer.features())
    finally:
        peer.close()
    result["bytes"] = sum(file.stat().st_size for file in task.out.rglob("*") if file.is_file())
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _timed(peer: Any) -> dict[str, Any]:
    begun = time.perf_counter()
    processed = peer.run()
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "processed": processed, **getattr(peer, "facts", {})}


def _save_features(path: Path, rows: Any) -> None:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    np.savez(path, indptr=indptr, indices=np.concatenate([np.asarray(row, dtype=np.uint32) for row in rows]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
