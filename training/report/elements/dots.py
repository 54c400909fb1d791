"""Scores with their intervals as one drawing that stands alone: it needs no style sheet, so a notebook can hold it.

Letters and lines take the colour of the text around them; only the dots have colours of their own, which are told apart
on white and on black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from training.report.elements.charts import Scale
from training.report.elements.figures import bounds, defined, score, ticks
from training.report.elements.plain import cut, plain
from training.report.elements.svg import number, tag

NAMES, PLOT, FIGURES, ROW, HEAD = 250.0, 300.0, 150.0, 22.0, 24.0  # units: widths of the columns, heights
LETTERS = 38  # of a name, which fit beside the plot
COLOURS = {"sae": "#2f7fd6", "base": "#d9772b", "none": "#8a8a8a", "control": "#8a8a8a"}


class Dot(NamedTuple):
    """One row: a name, its interval (`value`, `low`, `high`), and which of `COLOURS`."""

    name: str
    interval: Mapping[str, Any] | None
    klass: str


def dot_plot(dots: Sequence[Dot], says: str, mark: float | None = None) -> Markup:
    """A row for each name: its interval as a line, its value as a dot, both as figures.

    Args:
        dots: The rows.
        says: What it shows, for those who cannot see it.
        mark: A level to compare with, as a dashed line through all rows.
    """
    scale = Scale.over([dot.interval for dot in dots], mark)
    height = HEAD + ROW * len(dots) + 4

    def at(value: float) -> float:
        return NAMES + (value - scale.low) / (scale.high - scale.low) * PLOT

    parts = [tag("text", f"{t:g}", x=at(t), y=14.0, text_anchor="middle") for t in ticks(scale.low, scale.high, 5)]
    if scale.mark is not None:
        parts.append(_line(f"M{number(at(scale.mark))} {number(HEAD)}V{number(height)}", "4 3", 0.6))
    for row, dot in enumerate(dots):
        middle = HEAD + ROW * (row + 0.5)
        parts.append(tag("text", cut(plain(dot.name), LETTERS), x=NAMES - 12, y=middle + 4, text_anchor="end"))
        if not dot.interval or not defined(dot.interval.get("value")):
            continue
        colour = COLOURS.get(dot.klass, COLOURS["none"])
        if bounds(dot.interval):
            ends = (number(at(dot.interval[end])) for end in ("low", "high"))
            path = f"M{next(ends)} {number(middle)}H{next(ends)}"
            parts.append(tag("path", d=path, stroke=colour, stroke_width=2.0, fill="none"))
        parts.append(tag("circle", cx=at(dot.interval["value"]), cy=middle, r=4.5, fill=colour))
        between = f"  [{bounds(dot.interval)}]" if bounds(dot.interval) else ""
        said = f"{score(dot.interval['value'])}{between}"
        parts.append(tag("text", said, x=NAMES + PLOT + 12, y=middle + 4))
    return tag(
        "svg",
        Markup("").join(parts),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(NAMES + PLOT + FIGURES)} {number(height)}",
        width=NAMES + PLOT + FIGURES,
        style="max-width:100%;height:auto",
        font_family="system-ui,sans-serif",
        font_size=12.0,
        fill="currentColor",
        role="img",
        aria_label=says,
    )


def _line(path: str, dashes: str, opacity: float) -> Markup:
    return tag("path", d=path, stroke="currentColor", stroke_dasharray=dashes, opacity=opacity, fill="none")
