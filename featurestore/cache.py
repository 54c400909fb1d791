"""Where this machine keeps what can be made again: bundles, the demo's model file, measured rates, feature indexes."""

from __future__ import annotations

import os
from pathlib import Path


def cache_path(name: str) -> Path:
    """A path in `$SPARSEMILL_CACHE`, or in `~/.cache/sparsemill`; nothing is created."""
    return Path(os.environ.get("SPARSEMILL_CACHE") or Path.home() / ".cache" / "sparsemill") / name
