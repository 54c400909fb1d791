"""Write JSON, to stdout for `--json` and into files: no other way leads JSON out of the program.

JSON has no NaN and no infinity, and readers in other languages refuse what Python writes for them: `null` stands for a
number that is not finite, as it does for one that is not there.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping


def json_text(document: object, indent: int | None = None, ascii: bool = False) -> str:
    """A value as JSON; numbers that are not finite are null."""
    try:
        return json.dumps(document, ensure_ascii=ascii, allow_nan=False, indent=indent)
    except ValueError:
        return json.dumps(_finite(document), ensure_ascii=ascii, allow_nan=False, indent=indent)


def print_json(document: Mapping[str, object], version: int = 1) -> int:
    """Print what a command found as one line of JSON, in characters that stdout can show.

    Args:
        document: Key -> value; `docs.tooling.outputs` says what each command prints, and a test holds them to it.
        version: Of the shape; rises when a key goes or means something else, not when one is added.

    Returns:
        0, the exit code of success.
    """
    document = {"version": version, **document}
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    print(json_text(document, ascii=not encoding.startswith("utf")))
    return 0


def _finite(value: object) -> object:
    """Plain data with None for every float that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(below) for below in value]
    return value
