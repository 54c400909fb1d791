"""Names of dense columns: `{hook}__hidden_{kind}`, made where states are kept and parsed where they are looked for.

A hook is where in the model a vector was taken, as text: `resid_post_9` is the residual stream behind layer 9. Which
hooks a model has is left to stage 1. Light enough for its engine: no numpy, no Arrow.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PIXELS = "pixels"  # the dense column of an image made small, red, green and blue side by side
HIDDEN = ("mean", "last")  # over a document's counted tokens, in the order of the columns
_COLUMN = re.compile(rf"([A-Za-z]\w*)__hidden_({'|'.join(HIDDEN)})", re.ASCII)


class DenseName(NamedTuple):
    """What the name of a dense column says."""

    hook: str
    kind: str


def hook_name(site: str, layer: int) -> str:
    """`hook_name("resid_post", 9)` is "resid_post_9"; token embeddings, `embed`, have no layer."""
    return site if site == "embed" else f"{site}_{layer}"


def dense_name(hook: str, kind: str) -> str:
    """`dense_name("resid_post_9", "mean")` is "resid_post_9__hidden_mean"."""
    return f"{hook}__hidden_{kind}"


def parse_dense_name(column: str) -> DenseName | None:
    """Hook and kind of a column of hidden states; None for every other column."""
    found = _COLUMN.fullmatch(column)
    return None if found is None else DenseName(found[1], found[2])
