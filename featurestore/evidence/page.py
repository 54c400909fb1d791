"""Evidence for the eye: a document's running text, each token that fires with its activation behind it.

On a terminal such tokens are coloured by strength as well; without colours, in a pipe for instance, the same text says
the same. Whatever a text holds, it cannot move the cursor, and long stretches in which nothing fires are cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from featurestore.base.hostile_text import columns, visible
from featurestore.base.number_words import counted
from featurestore.evidence.records import DocumentEvidence, FeatureEvidence, Stretch, stretches

SILENT = 24  # stretches before and after one that fires which are shown; a paragraph's beginning and end
_COLOURS = (230, 223, 216, 209, 202)  # of 256: from pale to orange, black letters readable on each
_RESET = "\x1b[0m"

Piece = tuple[str, str]  # text, and the escape sequence that it is shown with


def page(document: DocumentEvidence, width: int, colours: bool) -> Iterator[str]:
    """The lines of a document's evidence.

    Args:
        document: What to show.
        width: Columns that a line may have.
        colours: Whether to colour.
    """
    n_pooled = sum(token.pooled for token in document.tokens)
    yield from _wrapped([(f"{visible(document.doc_id)}  {counted(n_pooled, 'counted token')}", "")], width, "")
    if document.problem is not None:
        yield from _wrapped([(visible(document.problem), "")], width, "  ")
    for feature in document.features:
        fires = sum(value > 0 for value in feature.values)
        what = f"fires on {counted(fires, 'token')}" if fires else "does not fire"
        numbers = f"  max {feature.max:.4g}  sum {feature.sum:.4g}" if fires else ""
        yield ""
        yield from _wrapped([(f"{feature.sae}:{feature.feature}  {what}{numbers}", "")], width, "  ")
        yield from _wrapped(_pieces(document, feature, colours), width, "    ")


def _pieces(document: DocumentEvidence, feature: FeatureEvidence, colours: bool) -> Iterator[Piece]:
    shown = stretches(document, feature)
    near = _near(shown)
    for number, stretch in enumerate(shown):
        if not near[number]:
            if number == 0 or near[number - 1]:
                length = next((i for i, kept in enumerate(near[number:]) if kept), len(near) - number)
                yield f" ... ({counted(length, 'token')}) ...", ""
            continue
        if stretch.value <= 0:
            yield visible(stretch.text), ""
            continue
        text = visible(stretch.text)
        word = text.lstrip(" ")
        yield text[: len(text) - len(word)], ""
        level = min(int(len(_COLOURS) * stretch.value / feature.max), len(_COLOURS) - 1)
        yield f"[{word}|{stretch.value:.3g}]", f"\x1b[38;5;16;48;5;{_COLOURS[level]}m" if colours else ""


def _near(shown: Sequence[Stretch]) -> list[bool]:
    """Which stretches are at most SILENT away from one that fires; the beginning is always shown."""
    firing = [0, *(number for number, stretch in enumerate(shown) if stretch.value > 0)]
    near = [False] * len(shown)
    for place, after in zip(firing, [*firing[1:], len(shown) + SILENT], strict=True):
        first = 0 if place == 0 else place - SILENT
        last = place + SILENT if after - place > 3 * SILENT else after  # what is cut is worth a word
        for number in range(max(first, 0), min(last + 1, len(shown))):
            near[number] = True
    return near


def _wrapped(pieces: Sequence[Piece] | Iterator[Piece], width: int, indent: str) -> Iterator[str]:
    """Lines of at most `width` columns, broken at spaces where there are any."""
    room = max(width - len(indent), 8)
    line: list[tuple[str, str]] = []  # (character, style)
    length = 0
    for text, style in pieces:
        for char in text:
            if length + columns(char) > room and columns(char):
                line, done = _broken(line)
                yield indent + _styled(done)
                length = sum(columns(kept) for kept, _ in line)
            if line or char != " " or style:
                line.append((char, style))
                length += columns(char)
    if line:
        yield indent + _styled(line)


def _broken(line: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(What goes on the next line, what stays) of a full line."""
    space = next((i for i in range(len(line) - 1, len(line) // 2, -1) if line[i][0] == " "), None)
    return ([], line) if space is None else (line[space + 1 :], line[:space])


def _styled(line: Sequence[tuple[str, str]]) -> str:
    out, before = [], ""
    for char, style in line:
        if style != before:
            out.append((_RESET if before else "") + style)
            before = style
        out.append(char)
    return "".join(out).rstrip() + (_RESET if before else "")
