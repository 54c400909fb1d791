"""The questions that a study's grid can answer, as families of methods that are compared.

A family is a set of methods; in each split the member with the best validation score stands for it, so every family
gets the benefit of its own tuning and no test score chooses. A question has one family for each level of what it asks
about (poolings, thresholds, probes, ...); the level that validates best is compared with each of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.methods.features import Method

AGAINST_BASELINES = "SAE features against each baseline"
BASELINES = {"majority": "majority", "tfidf": "TF-IDF words", "char": "character n-grams", "control": "random SAE"}


@dataclass(frozen=True)
class Question:
    """A question and its families.

    Attributes:
        text: The question.
        families: Level -> indices of its methods.
        reference: The level that the others are compared with; None for the one that validates best.
    """

    text: str
    families: Mapping[str, tuple[int, ...]]
    reference: str | None = None


def plan_questions(methods: Sequence[Method]) -> tuple[Question, ...]:
    """Every question for which the methods hold at least two levels."""
    sae = [i for i, m in enumerate(methods) if m.kind == "sae"]
    found = []
    if sae:
        families = {"SAE features": tuple(sae)}
        for i, method in enumerate(methods):
            if method.kind != "sae":
                name = BASELINES.get(method.kind, str(method.name.split(" ")[0]))
                families[name] = (*families.get(name, ()), i)
        found.append(Question(AGAINST_BASELINES, families, "SAE features"))
    factors: list[tuple[str, Callable[[Method], Any]]] = [
        ("Which SAE", lambda m: (m.store or "", m.sae)),
        ("Which pooling of SAE features", lambda m: m.pool),
        ("Does binarising help", lambda m: _threshold(m.binarize)),
        ("Which scale of SAE features", lambda m: m.scale),
        ("Does selecting features help", lambda m: "all" if m.select is None else f"{m.select} {m.k}"),
        ("Which probe on SAE features", lambda m: m.probe),
    ]
    for text, level in factors:
        families = {}
        for i in sae:
            value = level(methods[i])
            name = "/".join(filter(None, value)) if isinstance(value, tuple) else str(value)
            families[name] = (*families.get(name, ()), i)
        found.append(Question(text, families))
    for probe in dict.fromkeys(m.probe for m in methods if m.probe is not None):
        families = {}
        for i, method in enumerate(methods):
            if method.probe == probe and method.kind in ("sae", "dense"):
                name = "SAE features" if method.kind == "sae" else "hidden states"
                families[name] = (*families.get(name, ()), i)
        found.append(Question(f"SAE features against hidden states under {probe}", families, "SAE features"))
    return tuple(q for q in found if len(q.families) > 1 and (q.reference is None or q.reference in q.families))


def _threshold(binarize: float | str | None) -> str:
    if binarize is None:
        return "values"
    return f"> {binarize:g}" if isinstance(binarize, float) else f"> {binarize}"
