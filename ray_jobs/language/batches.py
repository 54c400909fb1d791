"""Run prompts in batches, the longest first, and halve those that fail, so that a bad prompt costs itself only.

What memory does not hold counts as failed. Batches depend on what one call is given and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")

Run = Callable[[Sequence[int]], Sequence[T | str]]
"""Computes some of the prompts, by their numbers: for each its outcome, or a sentence that says why there is none."""


def in_batches(lengths: Sequence[int], budget: int, most: int) -> Iterator[list[int]]:
    """The numbers of prompts, the longest first, so that a batch padded to its longest has at most `budget` slots.

    Args:
        lengths: Tokens of each prompt.
        budget: Slots of a batch; a longer prompt is a batch of its own.
        most: Prompts of a batch.
    """
    order = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    batch: list[int] = []
    for number in order:
        if batch and (len(batch) == most or (len(batch) + 1) * lengths[batch[0]] > budget):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def run_each(numbers: Sequence[int], run: Run[T]) -> dict[int, T | str]:
    """The outcome of every prompt of a batch, or the sentence that stands for it."""
    try:
        return dict(zip(numbers, run(numbers), strict=True))
    except torch.AcceleratorError:  # the device is gone for this process: no prompt's fault
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, it must cost one prompt only)
        if len(numbers) == 1:
            reason = " ".join(str(error).split())[:200]
            return {numbers[0]: f"the model failed on this prompt: {type(error).__name__}: {reason}"}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = (len(numbers) + 1) // 2
    return {**run_each(numbers[:middle], run), **run_each(numbers[middle:], run)}
