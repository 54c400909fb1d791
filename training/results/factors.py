"""What the methods of a study differ in: factors (pooling, threshold, probe, ...), whose levels are compared in pairs.

A level is a family of methods. In each split the member with the best validation score stands for it, so every level
gets the benefit of its own tuning and no test score chooses. The level that validates best is compared with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.base.dense_names import PIXELS
from training.methods.method import Method, store_name

AGAINST_BASELINES = "SAE features against each baseline"
BASELINES = {"majority": "majority", "tfidf": "TF-IDF words", "char": "character n-grams", "control": "random SAE"}
BESIDE = "What SAE features add to"  # and the name of numbers


@dataclass(frozen=True)
class Factor:
    """One thing that methods differ in.

    Attributes:
        question: What comparing its levels answers.
        levels: Level -> indices of its methods.
        reference: The level that the others are compared with; None for the one that validates best.
    """

    question: str
    levels: Mapping[str, tuple[int, ...]]
    reference: str | None = None


def plan_factors(methods: Sequence[Method]) -> tuple[Factor, ...]:
    """Every factor of which the methods hold at least two levels."""
    sae = [i for i, method in enumerate(methods) if method.kind == "sae"]
    found = []
    if sae:
        levels = {"SAE features": tuple(sae)}
        for i, method in enumerate(methods):
            if method.kind not in ("sae", "beside"):
                name = _baseline(method)
                levels[name] = (*levels.get(name, ()), i)
        found.append(Factor(AGAINST_BASELINES, levels, "SAE features"))
    of_method: list[tuple[str, Callable[[Method], Any]]] = [
        ("Which SAE", lambda m: (m.store or "", m.sae)),
        ("Which pooling of SAE features", lambda m: m.pool),
        ("Does binarising help", lambda m: _threshold(m.binarize)),
        ("Which scale of SAE features", lambda m: m.scale),
        ("Does selecting features help", lambda m: "all" if m.select is None else f"{m.select} {m.k}"),
        ("Which probe on SAE features", lambda m: m.probe),
    ]
    for question, level in of_method:
        levels = {}
        for i in sae:
            value = level(methods[i])
            name = "/".join(filter(None, value)) if isinstance(value, tuple) else str(value)
            levels[name] = (*levels.get(name, ()), i)
        found.append(Factor(question, levels))
    for numbers in dict.fromkeys(m.column for m in methods if m.kind == "beside"):
        both, alone = f"{numbers} and SAE features", str(numbers)
        levels = {}
        for i, method in enumerate(methods):
            if method.column == numbers and method.kind in ("beside", "numbers"):
                name = both if method.kind == "beside" else alone
                levels[name] = (*levels.get(name, ()), i)
        found.append(Factor(f"{BESIDE} {numbers}", levels, both))
    for probe in dict.fromkeys(m.probe for m in methods if m.probe is not None):
        levels = {}
        for i, method in enumerate(methods):
            if method.probe == probe and method.kind in ("sae", "dense") and method.column != PIXELS:
                own = "hidden states" if method.store is None else f"hidden states of {store_name(method.store)}"
                name = "SAE features" if method.kind == "sae" else own
                levels[name] = (*levels.get(name, ()), i)
        found.append(Factor(f"SAE features against hidden states under {probe}", levels, "SAE features"))
    return tuple(f for f in found if len(f.levels) > 1 and (f.reference is None or f.reference in f.levels))


def _baseline(method: Method) -> str:
    """The baseline that a method is a way of reading."""
    if method.kind == "peer":
        return f"features of {store_name(str(method.store))}"
    return BASELINES.get(method.kind, str(method.name.split(" ")[0]))


def _threshold(binarize: float | str | None) -> str:
    if binarize is None:
        return "values"
    return f"> {binarize:g}" if isinstance(binarize, float) else f"> {binarize}"
