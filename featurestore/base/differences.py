"""List what differs between two values of plain data, in the words that a refusal needs: "pool ['max'] -> ['sum']".

Only differences are named, each by the path that leads to it. Whether they matter is the caller's to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

_SHOWN = 6  # more than a reader takes in; the rest is counted
_SHOWN_CHARACTERS = 70  # of a value
_SHOWN_OF_A_HASH = 12  # two that differ do so there; whoever reads it compares, and types none
_SHA256 = re.compile("[0-9a-f]{64}")


def differences(old: Any, new: Any) -> list[str]:
    """Each difference as "key old -> new", in the order of the keys; empty if both are the same JSON."""
    return list(_differences(_plain(old), _plain(new), ""))


def listed(changes: Sequence[str]) -> str:
    """The first few of them in one line, and how many more there are."""
    more = len(changes) - _SHOWN
    return "; ".join(changes[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif _records(old) and _records(new) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differences(a, b, f"{path}[{i}]")
    elif old != new:
        yield f"{path} {_brief(old)} -> {_brief(new)}"


def _records(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _brief(value: Any) -> str:
    if value is None:
        return "(none)"
    if _records(value):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        value = ", ".join(f"{key} {_brief(inner)}" for key, inner in value.items())
    text = value if isinstance(value, str) else str(value)
    if _SHA256.fullmatch(text):
        return f"{text[:_SHOWN_OF_A_HASH]}..."
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
