"""Text with the tokens marked in which a feature fires: from evidence kept beside the study, a window around the peak.

Marks have five strengths, relative to the largest value of the feature on the page, so that a weak example looks weak.
Characters between two tokens that no token covers are a space; a token that covers none (a part of a character that was
split) adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featurestore.evidence.records import DocumentEvidence

BEFORE, AFTER = 26, 18  # tokens around the peak: two or three lines
STRENGTHS = 5


@dataclass(frozen=True)
class Span:
    """A piece of text with one mark: strength 0 (none) to 5, and on which side ("a" for, "b" against)."""

    text: str
    strength: int
    side: str = "a"
    value: str = ""


@dataclass(frozen=True)
class Marked:
    """A document's text as spans; `before` and `after` say whether it goes on there."""

    spans: tuple[Span, ...]
    before: bool
    after: bool


def marked(
    document: DocumentEvidence,
    most: Mapping[tuple[str, int], float],
    sides: Mapping[tuple[str, int], str],
    before: int = BEFORE,
) -> Marked:
    """The window around the strongest token of a document.

    Args:
        document: Tokens with the values of some features.
        most: (SAE, feature) -> the value that gets the strongest mark.
        sides: (SAE, feature) -> its side, "a" or "b"; where several fire, the strongest marks the token.
        before: Tokens shown before the strongest.
    """
    n = len(document.tokens)
    strength, side, value = [0.0] * n, ["a"] * n, [0.0] * n
    for feature in document.features:
        key = (feature.sae, feature.feature)
        top = most.get(key, 0.0) or feature.max
        for t, v in enumerate(feature.values):
            if v > 0 and top > 0 and v / top > strength[t]:
                strength[t], side[t], value[t] = min(v / top, 1.0), sides.get(key, "a"), v
    peak = max(range(n), key=lambda t: strength[t], default=0)
    pooled = [t for t, token in enumerate(document.tokens) if token.stop > token.start or token.pooled]
    if not pooled:
        return Marked((), False, False)
    place = min(range(len(pooled)), key=lambda i: abs(pooled[i] - peak))
    first, last = max(place - before, 0), place + AFTER
    window = pooled[first : last + 1]
    spans: list[Span] = []
    end = document.tokens[window[0]].start
    for t in window:
        token = document.tokens[t]
        gap = " " if token.start > end else ""
        text = token.text[max(end - token.start, 0) :] if token.stop > token.start else ""
        end = max(end, token.stop)
        if text or gap:
            level = 0 if not strength[t] else max(1, min(STRENGTHS, round(strength[t] * STRENGTHS)))
            bare = text.lstrip(" ") if level else text  # a space that belongs to the token is not what fired
            spans += [Span(gap + text[: len(text) - len(bare)], 0)] if level else []
            spans.append(Span(bare or text, level, side[t], f"{value[t]:.3g}") if level else Span(gap + text, 0))
    return Marked(tuple(_joined(spans)), first > 0, last + 1 < len(pooled))


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Neighbours without a mark as one span."""
    found: list[Span] = []
    for span in spans:
        if not span.text:
            continue
        if found and not span.strength and not found[-1].strength:
            found[-1] = Span(found[-1].text + span.text, 0)
        else:
            found.append(span)
    return found
