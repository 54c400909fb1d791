"""What arguments of several commands mean: a feature and a count are written the same way everywhere."""

from __future__ import annotations

import argparse


def feature_argument(text: str) -> tuple[str | None, int]:
    """`l12_16k:1234` or `1234`."""
    sae, colon, number = text.rpartition(":")
    if not (number.isascii() and number.isdecimal()) or (colon and not sae):
        raise argparse.ArgumentTypeError(f"must be a feature's number, or SAE:NUMBER, not {text!r}")
    return sae or None, int(number)


def count_argument(text: str) -> int:
    """A whole number of at least 1."""
    if not (text.isascii() and text.strip().isdecimal() and len(text) <= 12) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text[:40]!r}")
    return int(text)
