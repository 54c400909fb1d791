"""What features add to a prediction, in words: over text, over a few numbers, over what another store holds.

It is said where a study has baselines of another store or numbers among them: a study across models, whose label is
what another model did. Every sentence is one of the study's own comparisons, by its own rule: a difference is said
where the corrected p is below the level, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.methods.store_names import store_names
from training.results.factors import AGAINST_BASELINES, BESIDE
from training.scores.significance import Comparison
from training.spec import StudySpec


def what_is_added(spec: StudySpec, comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Sentences on what the features add to predicting the label; none in a study without such baselines.

    Args:
        spec: The study.
        comparisons: All of its comparisons.
    """
    mine = [c for c in comparisons if c.question == AGAINST_BASELINES]
    if not mine or all(isinstance(one, str) for one in spec.baselines):
        return ()
    label = spec.label if isinstance(spec.label, str) else spec.label.column
    better = [c.b for c in mine if c.shown and c.difference.value > 0]
    worse = [c.b for c in mine if c.shown and c.difference.value < 0]
    even = [c.b for c in mine if not c.shown]
    said = [
        *([f"better than {_all_of(better)}"] if better else []),
        *([f"worse than {_all_of(worse)}"] if worse else []),
        *([f"not shown to differ from {_all_of(even)}"] if even else []),
    ]
    stores = store_names([spec.store, *spec.other_stores])
    names = dict.fromkeys(stores[f.store or spec.store] for f in spec.features if not f.control)
    of = f"SAE features of {_all_of(list(names))}"
    sentences = [
        f"{of} predict '{label}' {'; '.join(said)}."
        if better or worse
        else f"{of} are not shown to differ from {_all_of(even)} in predicting '{label}'."
    ]
    beside = [c for c in comparisons if c.question.startswith(f"{BESIDE} ")]
    for comparison in beside:
        d = comparison.difference
        both = f"{comparison.a_macro_f1:.3f} against {comparison.b_macro_f1:.3f}"
        by = f"macro F1 {both}, {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
        if not comparison.shown:
            sentences.append(f"Beside {comparison.b} they are not shown to add anything ({by}).")
        else:
            verb = "add something" if d.value > 0 else "do harm"
            sentences.append(f"Beside {comparison.b} they {verb} ({by}).")
    return (*sentences, _conclusion(label, better, worse, even, beside))


def _conclusion(
    label: str, better: Sequence[str], worse: Sequence[str], even: Sequence[str], beside: Sequence[Comparison]
) -> str:
    adds = [c.b for c in beside if c.shown and c.difference.value > 0]
    beaten = [name for name in better if name != "majority"]
    if "majority" not in better:
        return f"So nothing is shown that they tell about '{label}': always giving the commonest answer does as well."
    if not (worse or even):
        return f"So they tell more about '{label}' than every baseline of this study."
    if adds:
        return f"So they tell something about '{label}' that is not in {_all_of(adds)}."
    if beaten:
        return (
            f"So they tell something about '{label}' that is not in {_all_of(beaten)}, and nothing is shown that they "
            f"add to {_all_of([*worse, *even])}."
        )
    return f"So they tell something about '{label}', but nothing is shown that is not in {_all_of([*worse, *even])}."


def _all_of(names: Sequence[str]) -> str:
    """Names in a row, as a sentence has them."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
