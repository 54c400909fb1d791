"""Which member of a family of methods stands for it in each split: the one with the best validation score there.

There are two families, SAE features and baselines; features beside numbers are of neither. Test scores play no part.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.results.evaluated import Evaluated

FAMILIES = {"sae": "SAE, selected", "baseline": "baseline, selected"}  # and how tables name what validation chose

MOST = 3  # methods that a sentence names; the tables have all


def select(evaluated: Evaluated) -> dict[str, tuple[int, ...]]:
    """Family -> index of the method that validation chose in each split; families without members are left out."""
    kinds = [outcome.method.kind for outcome in evaluated.outcomes]
    family = {kind: "sae" if kind == "sae" else "baseline" for kind in kinds if kind != "beside"}
    members = {name: [m for m, kind in enumerate(kinds) if family.get(kind) == name] for name in FAMILIES}
    return {name: best(evaluated, mine) for name, mine in members.items() if mine}


def best(evaluated: Evaluated, members: Sequence[int]) -> tuple[int, ...]:
    """For each split the member with the best validation score of that split; among equals the first."""
    n = len(evaluated.splits)
    return tuple(max(members, key=lambda m: evaluated.validation(m, s)) for s in range(n))


def selected_words(names: Sequence[str]) -> str:
    """What stands for a family: the method, or that validation selected several, and which in how many splits."""
    counts = sorted(dict.fromkeys(names), key=lambda name: -names.count(name))
    if len(counts) == 1:
        return counts[0]
    said = [f"{name} in {names.count(name)}" for name in counts[:MOST]]
    said[0] += f" of {len(names)} splits"
    more = [f"{len(counts) - MOST} more"] if len(counts) > MOST else []
    return f"selected by validation: {', '.join([*said, *more])}"


def representative(names: Sequence[str]) -> str:
    """The method that stands for a family: the one chosen in most splits, among equals the first."""
    return max(dict.fromkeys(names), key=names.count)
