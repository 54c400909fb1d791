"""The recorded runs in results/, by the name of what was measured; the newest counts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_NAME = re.compile(r"(.+?)-(?:\d+-cores|nvidia)-.+-(\d{4}-\d\d-\d\d)\.json")  # measurement, machine, date


def newest_records() -> dict[str, dict[str, Any]]:
    """Measurement ("extract", "gpu-9b", "study-1000") -> its newest record."""
    found: dict[str, tuple[str, Path]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        if (name := _NAME.fullmatch(path.name)) is not None:
            found[name[1]] = max(found.get(name[1], ("", path)), (name[2], path))
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, (_, path) in found.items()}
