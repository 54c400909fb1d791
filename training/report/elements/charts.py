"""The charts of a page, from plain numbers: intervals in a row of a table, curves with bands, reliability, bars.

Each takes figures and words and returns SVG; what belongs on a chart is decided by whoever calls. Undefined numbers are
left out, never drawn as zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from training.report.elements.figures import defined, ticks
from training.report.elements.svg import Axis, Frame, drawing, number, tag

CELL, CELL_HEIGHT = 160.0, 18.0  # of an interval in a row


@dataclass(frozen=True)
class Scale:
    """The common axis of intervals that stand in the rows of one table.

    Attributes:
        low, high: Its ends.
        mark: Where a line goes through all rows (the majority's score, no difference), or None.
    """

    low: float
    high: float
    mark: float | None = None

    @classmethod
    def over(cls, intervals: Sequence[Mapping[str, Any] | None], mark: float | None = None) -> Scale:
        """The scale that holds all intervals and the mark."""
        values = [v for i in intervals if i for v in (i.get("value"), i.get("low"), i.get("high")) if defined(v)]
        values += [mark] if mark is not None and defined(mark) else []
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        room = (high - low) * 0.04 or 0.05
        return cls(low - room, high + room, mark if defined(mark) else None)

    def at(self, value: float) -> float:
        """Position of a value."""
        return 4 + (value - self.low) / (self.high - self.low) * (CELL - 8)

    def head(self) -> Markup:
        """The axis, for the head of the table."""
        parts = [tag("path", d=f"M4 {number(CELL_HEIGHT - 1)}H{number(CELL - 4)}", klass="axis")]
        for value in ticks(self.low, self.high, 4):
            at = min(max(self.at(value), 12), CELL - 12)
            parts.append(tag("text", f"{value:g}".replace("-", "\u2212"), x=at, y=11.0, klass="mid"))
        return self._cell(parts)

    def row(self, interval: Mapping[str, Any] | None, klass: str) -> Markup:
        """One interval with its point; empty where it is undefined."""
        parts = []
        if self.mark is not None:
            parts.append(tag("path", d=f"M{number(self.at(self.mark))} 0V{number(CELL_HEIGHT)}", klass="mark"))
        if interval and defined(interval.get("value")):
            middle = number(CELL_HEIGHT / 2)
            if defined(interval.get("low")) and defined(interval.get("high")):
                ends = [number(self.at(min(max(interval[end], self.low), self.high))) for end in ("low", "high")]
                parts.append(tag("path", d=f"M{ends[0]} {middle}H{ends[1]}", klass=f"stroke {klass}"))
            parts.append(tag("circle", cx=self.at(interval["value"]), cy=CELL_HEIGHT / 2, r=3.5, klass=f"fill {klass}"))
        return self._cell(parts)

    def _cell(self, parts: Sequence[Markup]) -> Markup:
        box = f"0 0 {number(CELL)} {number(CELL_HEIGHT)}"
        return tag("svg", Markup("").join(parts), viewBox=box, klass="interval", aria_hidden="true")


@dataclass(frozen=True)
class Curve:
    """One line: (x, y, low, high) for each point, low and high None where there is no interval."""

    name: str
    points: Sequence[tuple[float, float, float | None, float | None]]
    klass: str


def curves(
    lines: Sequence[Curve],
    x_title: str,
    y_title: str,
    says: str,
    marks: Sequence[tuple[float, str]] = (),
    floor: float | None = None,
) -> Markup:
    """Lines with the bands of their intervals, points marked where they were measured.

    Args:
        lines: The lines.
        x_title, y_title: What the axes measure.
        says: What it shows.
        marks: (x, label) of the axis; the points' own x if they are to be even.
        floor: A level to compare with (the majority's), dashed.
    """
    xs = [p[0] for line in lines for p in line.points]
    ys = [v for line in lines for p in line.points for v in p[1:] if v is not None and defined(v)]
    ys += [floor] if floor is not None and defined(floor) else []
    if not xs or not ys:
        return Markup("")
    room = (max(ys) - min(ys)) * 0.06 or 0.02
    side = (max(xs) - min(xs)) * 0.04 or 0.5
    frame = Frame(
        Axis(min(xs) - side, max(xs) + side, x_title, tuple(marks)), Axis(min(ys) - room, max(ys) + room, y_title)
    )
    parts = frame.axes()
    if floor is not None and defined(floor):
        parts.append(frame.line([(frame.x.low, floor), (frame.x.high, floor)], "dash"))
    for line in lines:
        banded = [(x, low, high) for x, _, low, high in line.points if low is not None and high is not None]
        banded = [point for point in banded if all(map(defined, point))]
        parts += [frame.band(banded, f"band {line.klass}")] if len(banded) > 1 else []
    for line in lines:
        there = [(x, y) for x, y, _, _ in line.points if defined(y)]
        parts += [frame.line(there, f"stroke {line.klass}")] if len(there) > 1 else []
        parts += [frame.dot(x, y, f"fill {line.klass}", 3.0) for x, y in there]
    return drawing(parts, says)


def steps(
    lines: Sequence[tuple[Sequence[tuple[float, float]], str]],
    x_title: str,
    y_title: str,
    says: str,
    points: Sequence[tuple[float, float, str]] = (),
    level: float | None = None,
) -> Markup:
    """Lines in the unit square, without points: precision against recall.

    Args:
        lines: (points, class) of each.
        x_title, y_title: What the axes measure.
        says: What it shows.
        points: (x, y, class) of single points, the operating point among them.
        level: A dashed level.
    """
    frame = Frame(Axis(0.0, 1.0, x_title), Axis(0.0, 1.0, y_title))
    parts = frame.axes()
    parts += [frame.line([(0.0, level), (1.0, level)], "dash")] if level is not None and defined(level) else []
    parts += [frame.line(points, klass) for points, klass in lines if len(points) > 1]
    parts += [frame.dot(x, y, klass, 5.0) for x, y, klass in points if defined(x) and defined(y)]
    return drawing(parts, says)


def reliability(bins: Sequence[Mapping[str, Any]], says: str) -> Markup:
    """What a model says against what comes true: a point for each bin with its interval, and how many lie there.

    Args:
        bins: Each with `confidence` (mean), `right` (share), `low`, `high` of the share, and `n`.
        says: What it shows.
    """
    frame = Frame(Axis(0.0, 1.0, "stated probability"), Axis(0.0, 1.0, "share that is right"))
    parts = [*frame.axes(), frame.line([(0.0, 0.0), (1.0, 1.0)], "dash")]
    most = max((b["n"] for b in bins), default=0)
    for b in bins:
        share = b["n"] / most * 0.16 if most else 0.0
        edge = math.floor(min(b["confidence"], 0.999) * 10) / 10
        parts.append(frame.bar(edge, edge + 0.1, share, "bar faint"))
    for b in bins:
        parts.append(frame.whisker(b["confidence"], b["low"], b["high"], "stroke sae"))
        parts.append(frame.dot(b["confidence"], b["right"], "fill sae"))
    return drawing(parts, says)


def bars(
    heights: Sequence[float], labels: Sequence[str], x_title: str, y_title: str, says: str, klass: str = "sae"
) -> Markup:
    """A small histogram; `labels` has one more entry than `heights`, the edges of the bins."""
    n = len(heights)
    every = max(1, math.ceil((n + 1) / 6))
    marks = tuple((float(i), labels[i]) for i in range(0, n + 1, every))
    frame = Frame(Axis(0.0, float(n), x_title, marks), Axis(0.0, max([*heights, 1]), y_title), height=170.0)
    parts = frame.axes()
    parts += [frame.bar(i, i + 1, height, f"bar {klass}") for i, height in enumerate(heights) if height]
    return drawing(parts, says, height=170.0)
