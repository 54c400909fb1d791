"""What the methods of a study differ in: factors (pooling, threshold, probe, ...), whose levels are compared in pairs.

A level is a family of methods. In each split the member with the best validation score stands for it, so every level
gets the benefit of its own tuning and no test score chooses. The level that validates best is compared with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.base.dense_names import PIXELS
from featurestore.base.number_words import told_apart
from training.methods.method import Method
from training.methods.store_names import store_names

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


def plan_factors(methods: Sequence[Method], store: str) -> tuple[Factor, ...]:
    """Every factor of which the methods hold at least two levels.

    Args:
        methods: Of a study.
        store: URI of the study's own store; others are called so that no two of them have one name.
    """
    stores = store_names([store, *(method.store for method in methods if method.store is not None)])
    words = told_apart(method.binarize for method in methods if isinstance(method.binarize, float))
    sae = [i for i, method in enumerate(methods) if method.kind == "sae"]
    found = []
    if sae:
        levels = {"SAE features": tuple(sae)}
        for i, method in enumerate(methods):
            if method.kind not in ("sae", "beside"):
                name = _baseline(method, stores)
                levels[name] = (*levels.get(name, ()), i)
        found.append(Factor(AGAINST_BASELINES, levels, "SAE features"))
    of_method: list[tuple[str, Callable[[Method], Any]]] = [
        ("Which SAE", lambda m: m.sae if m.store is None else f"{stores[m.store]}/{m.sae}"),
        ("Which pooling of SAE features", lambda m: m.pool),
        ("Does binarising help", lambda m: _threshold(m.binarize, words)),
        ("Which scale of SAE features", lambda m: m.scale),
        ("Does selecting features help", lambda m: "all" if m.select is None else f"{m.select} {m.k}"),
        ("Which probe on SAE features", lambda m: m.probe),
    ]
    for question, level in of_method:
        levels = {}
        for i in sae:
            name = str(level(methods[i]))
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
                own = "hidden states" if method.store is None else f"hidden states of {stores[method.store]}"
                name = "SAE features" if method.kind == "sae" else own
                levels[name] = (*levels.get(name, ()), i)
        found.append(Factor(f"SAE features against hidden states under {probe}", levels, "SAE features"))
    return tuple(f for f in found if len(f.levels) > 1 and (f.reference is None or f.reference in f.levels))


def _baseline(method: Method, stores: Mapping[str, str]) -> str:
    """The baseline that a method is a way of reading."""
    if method.kind == "peer":
        return f"features of {stores[str(method.store)]}"
    return BASELINES.get(method.kind, method.name.removesuffix(f" {method.probe}"))


def _threshold(binarize: float | str | None, words: Mapping[float, str]) -> str:
    if binarize is None:
        return "values"
    return f"> {words[binarize] if isinstance(binarize, float) else binarize}"
