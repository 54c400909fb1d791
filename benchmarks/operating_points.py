"""How often the interval of recall at a fixed threshold contains the true recall, over simulated data sets.

    python -m benchmarks.operating_points [--sets 400] [--json] [--record]

Scores of the class are normal around 2, those of other documents around 0, so the true recall at any threshold is
known. In each data set a threshold is chosen for a recall on out-of-fold scores of 800 training documents and its
recall is measured on 800 test documents, as a study does it. Grouped documents come in groups of 1 to 9 of one class,
whose scores share a part of their chance (a correlation of .4); the same documents held out by three seeds count once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import machine, report
from featurestore.models.thresholds import sides
from training.scores.operating_points import Aim, choose_point, measure

RECALLS = (0.8, 0.98)
DESIGNS = ("single", "grouped", "three seeds")
DOCUMENTS, SHARE, APART = 800, 0.4, 2.0  # on either side; of the class; distance of the classes' mean scores
CORRELATION = 0.4  # of the scores of a group


def coverage(sets: int, recall: float, design: str, seed: int = 0) -> dict[str, float]:
    """Share of data sets whose interval contains the true recall, and what the intervals look like.

    Args:
        sets: How many data sets.
        recall: The aim.
        design: One of DESIGNS.
        seed: Of the random numbers.
    """
    from scipy.special import ndtr

    dice, aim = np.random.default_rng(seed), Aim("recall", recall)
    inside, widths, true = [], [], []
    for _ in range(sets):
        score, positive, _ = _documents(dice, design == "grouped")
        point = choose_point(score, positive, aim, "the class")
        score, positive, unit = _documents(dice, design == "grouped")
        if design == "three seeds":  # each holds out a random two thirds of the same documents
            rows = np.concatenate([dice.permutation(len(score))[: 2 * len(score) // 3] for _ in range(3)])
            score, positive, unit = score[rows], positive[rows], unit[rows]
        found = measure(sides(score, point.low, point.high), positive, unit, aim).recall.interval
        true.append(float(ndtr(APART - point.high)))
        inside.append(found.low <= true[-1] <= found.high)
        widths.append(found.high - found.low)
    return {"coverage": float(np.mean(inside)), "width": float(np.mean(widths)), "true_recall": float(np.mean(true))}


def _documents(dice: np.random.Generator, grouped: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores, whether of the class, units) of DOCUMENTS documents."""
    size = dice.integers(1, 10, DOCUMENTS) if grouped else np.ones(DOCUMENTS, dtype=np.int64)
    unit = np.repeat(np.arange(DOCUMENTS), size)[:DOCUMENTS]
    positive = (dice.random(DOCUMENTS) < SHARE)[unit]
    common = dice.normal(size=DOCUMENTS)[unit]
    part = CORRELATION if grouped else 0.0
    score = APART * positive + np.sqrt(part) * common + np.sqrt(1 - part) * dice.normal(size=DOCUMENTS)
    return score, positive, unit


def main(argv: list[str] | None = None) -> int:
    """Run it."""
    args = _parser().parse_args(argv)
    found = {f"{recall:g} {design}": coverage(args.sets, recall, design) for recall in RECALLS for design in DESIGNS}
    described = machine.describe()
    figures = {"machine": described, "command": sys.argv[1:], "sets": args.sets, "designs": found}
    if args.record:
        print(report.record("operating-points", figures, described), file=sys.stderr)
    print(json.dumps(figures, indent=1) if args.json else "\n".join(map(shown, found, found.values())))
    return 0


def shown(name: str, found: Mapping[str, Any]) -> str:
    """For a terminal."""
    return (
        f"recall {name:>16}: the interval contains the true recall in {found['coverage']:.1%} of data sets "
        f"(mean width {found['width']:.3f}, mean true recall {found['true_recall']:.3f})"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.operating_points", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--sets", type=int, default=400, help="simulated data sets for each design")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write into benchmarks/results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
