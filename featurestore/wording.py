"""Numbers with their nouns, as people read them: what every command prints is put together here once."""

from __future__ import annotations


def counted(n: int, noun: str) -> str:
    """`counted(1, "part")` is "1 part", `counted(1200, "part")` is "1,200 parts"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
