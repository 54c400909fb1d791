"""Find the folder where this machine keeps what can be made again: bundles, model files, rates, feature indexes."""

from __future__ import annotations

import os
from pathlib import Path

from featurestore.storage.user_outputs import local_path


def cache_path(name: str) -> Path:
    """A path in `$SPARSEMILL_CACHE`, or in `~/.cache/sparsemill`; nothing is created."""
    given = os.environ.get("SPARSEMILL_CACHE")
    return (local_path(given, "$SPARSEMILL_CACHE") if given else Path.home() / ".cache" / "sparsemill") / name
