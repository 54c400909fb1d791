"""Names of poolings: which there are, in which order, which count tokens, and which are derived from which.

Jobs, stores and studies all go by this list. How a pooling is computed is left to the engine of stage 1, what its
column looks like on disk to `format.schema`. Light enough for the engine: no numpy, no Arrow.
"""

from __future__ import annotations

import re

NAMED = ("max", "sum", "count", "last")  # in the order of their columns; top{N} come behind, by N
STORED = "max, sum, count, last or top<N>"  # as sentences list them
READABLE = "max, sum, mean, count, last or top<N>"
MEAN = "mean"  # sum / n_tokens, derived on reading
_TOP_N = re.compile(r"top([1-9][0-9]{0,9})")  # no SAE has 2**32 features, so no N has more digits


def is_pool(pool: str) -> bool:
    """Whether `pool` names a stored pooling: max, sum, count, last or top{N}."""
    return pool in NAMED or top_size(pool) is not None


def is_readable(pool: str) -> bool:
    """Whether `pool` can be asked for: a stored pooling, or mean."""
    return pool == MEAN or is_pool(pool)


def is_count_pool(pool: str) -> bool:
    """Whether `pool` counts tokens (uint32) and is not a float32 activation."""
    return pool == "count" or top_size(pool) is not None


def top_size(pool: str) -> int | None:
    """N of `top{N}`, None for other poolings."""
    found = _TOP_N.fullmatch(pool)
    return None if found is None else int(found[1])


def stored_pool(pool: str) -> str:
    """The stored pooling that answers for `pool`: "sum" for "mean", else itself."""
    return "sum" if pool == MEAN else pool


def pool_order(pool: str) -> tuple[int, int]:
    """Sorts poolings as their columns are: rewriting the list in a job does not make it another job."""
    return (NAMED.index(pool), 0) if pool in NAMED else (len(NAMED), top_size(pool) or 0)
