"""Charts as inline SVG: a frame with axes, and what is drawn in it. Colours are classes, so themes reach them.

A chart is drawn 360 units wide, about as wide as a phone, so its letters keep their size there. Positions are rounded
to a tenth of a unit. Text that comes from outside is made plain and escaped here, whoever passes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from training.report.elements.figures import ticks
from training.report.elements.plain import cut, plain

WIDTH, HEIGHT = 360.0, 230.0
LETTER = 6.1  # mean width of a letter at 11 units, for labels that need room
WIDER = 1.2  # than drawn, where there is room: letters of 13 pixels beside a text of 17
LABEL = 26  # letters of a label at most; the table beside the chart has all of it


def number(value: float) -> str:
    """A position, as short as it can be."""
    return f"{value:.1f}".removesuffix(".0")


def tag(name: str, content: str | Markup | None = None, **attributes: float | str | None) -> Markup:
    """One element; `klass` is its class, and a `_` in a name stands for "-"."""
    written = "".join(
        f' {"class" if key == "klass" else key.replace("_", "-")}="{escape(plain(value))}"'
        for key, value in ((k, number(v) if isinstance(v, float) else v) for k, v in attributes.items())
        if value is not None
    )
    inside = "" if content is None else content if isinstance(content, Markup) else escape(plain(content))
    return Markup(f"<{name}{written}>{inside}</{name}>" if content is not None else f"<{name}{written}/>")


def drawing(
    parts: Iterable[Markup], says: str, width: float = WIDTH, height: float = HEIGHT, klass: str = ""
) -> Markup:
    """A whole chart; `says` is what it shows, for those who cannot see it."""
    return tag(
        "svg",
        Markup("").join(parts),
        width=width * WIDER,
        viewBox=f"0 0 {number(width)} {number(height)}",
        klass=f"chart {klass}".strip(),
        role="img",
        aria_label=says,
    )


@dataclass(frozen=True)
class Axis:
    """One axis: from low to high, with marks.

    Attributes:
        low, high: Its ends.
        title: What it measures.
        marks: (value, label); round numbers if not given.
    """

    low: float
    high: float
    title: str
    marks: Sequence[tuple[float, str]] = field(default=())

    def labelled(self) -> list[tuple[float, str]]:
        """Its marks."""
        return list(self.marks) or [(value, f"{value:g}") for value in ticks(self.low, self.high, 5)]


@dataclass(frozen=True)
class Frame:
    """Where a chart's values lie: a rectangle with two axes."""

    x: Axis
    y: Axis
    width: float = WIDTH
    height: float = HEIGHT
    left: float = 40.0
    bottom: float = 34.0
    top: float = 8.0
    right: float = 10.0

    def at_x(self, value: float) -> float:
        """Horizontal position of a value."""
        share = (value - self.x.low) / ((self.x.high - self.x.low) or 1.0)
        return self.left + share * (self.width - self.left - self.right)

    def at_y(self, value: float) -> float:
        """Vertical position of a value."""
        share = (value - self.y.low) / ((self.y.high - self.y.low) or 1.0)
        return self.height - self.bottom - share * (self.height - self.bottom - self.top)

    def axes(self) -> list[Markup]:
        """Lines, marks and titles."""
        floor, parts = self.height - self.bottom, []
        for value, label in self.y.labelled():
            y = self.at_y(value)
            parts.append(
                tag("path", d=f"M{number(self.left)} {number(y)}H{number(self.width - self.right)}", klass="rule")
            )
            parts.append(tag("text", label, x=self.left - 5, y=y + 3.5, klass="end"))
        for value, label in self.x.labelled():
            parts.append(tag("text", label, x=self.at_x(value), y=floor + 14, klass="mid"))
        middle = (self.left + self.width - self.right) / 2
        parts.append(
            tag("path", d=f"M{number(self.left)} {number(floor)}H{number(self.width - self.right)}", klass="axis")
        )
        parts.append(tag("text", self.x.title, x=middle, y=self.height - 4, klass="mid name"))
        across = (self.top + floor) / 2
        parts.append(
            tag(
                "text",
                self.y.title,
                x=0.0,
                y=0.0,
                klass="mid name",
                transform=f"translate(10 {number(across)}) rotate(-90)",
            )
        )
        return parts

    def line(self, points: Sequence[tuple[float, float]], klass: str) -> Markup:
        """A line through points."""
        steps = "L".join(f"{number(self.at_x(x))} {number(self.at_y(y))}" for x, y in points)
        return tag("path", d=f"M{steps}", klass=klass)

    def band(self, points: Sequence[tuple[float, float, float]], klass: str) -> Markup:
        """The area between (x, low, high)."""
        edge = [(x, high) for x, _, high in points] + [(x, low) for x, low, _ in reversed(points)]
        steps = "L".join(f"{number(self.at_x(x))} {number(self.at_y(y))}" for x, y in edge)
        return tag("path", d=f"M{steps}Z", klass=klass)

    def dot(self, x: float, y: float, klass: str, radius: float = 3.5) -> Markup:
        """A point."""
        return tag("circle", cx=self.at_x(x), cy=self.at_y(y), r=radius, klass=klass)

    def whisker(self, x: float, low: float, high: float, klass: str) -> Markup:
        """An upright interval."""
        return tag("path", d=f"M{number(self.at_x(x))} {number(self.at_y(low))}V{number(self.at_y(high))}", klass=klass)

    def bar(self, start: float, stop: float, height: float, klass: str) -> Markup:
        """A bar from the bottom of the axis."""
        x, y = self.at_x(start), self.at_y(height)
        return tag(
            "rect",
            x=x + 0.5,
            y=y,
            width=max(self.at_x(stop) - x - 1, 0.5),
            height=self.at_y(self.y.low) - y,
            klass=klass,
        )


def grid(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[tuple[str, int | None]]],
    says: str,
    row_title: str = "",
    column_title: str = "",
) -> Markup:
    """A matrix of coloured cells: heat maps, confusions, languages.

    Args:
        rows, columns: Their labels.
        cells: For each row and column what is written there, and its shade from 0 to 8 (None for an empty cell).
        says: What it shows.
        row_title, column_title: What rows and columns are.
    """
    names = [cut(plain(row), LABEL) for row in rows]
    heads = [cut(plain(column), 12) for column in columns]
    left = max([len(name) for name in names] + [len(row_title)]) * LETTER + 10
    wide = min(max(max(map(len, heads), default=4) * LETTER + 8, 46.0), 90.0)
    high, top = 30.0, 34.0 if column_title else 20.0
    width = max(left + wide * len(columns) + 2, left + len(column_title) * LETTER)
    parts = [tag("text", column_title, x=left, y=11.0, klass="name")] if column_title else []
    parts += [tag("text", row_title, x=left - 6, y=top - 6, klass="end name")] if row_title else []
    parts += [tag("text", head, x=left + wide * (c + 0.5), y=top - 6, klass="mid") for c, head in enumerate(heads)]
    for r, name in enumerate(names):
        y = top + high * r
        parts.append(tag("text", name, x=left - 6, y=y + 19, klass="end"))
        for c, (written, shade) in enumerate(cells[r]):
            if shade is None:
                continue
            x = left + wide * c
            parts.append(tag("rect", x=x, y=y, width=wide - 2, height=high - 2, klass=f"g{shade}"))
            parts.append(tag("text", written, x=x + wide / 2 - 1, y=y + 18, klass=f"mid t{shade}"))
    return drawing(parts, says, width, top + high * len(rows), f"grid{' wide' if width > WIDTH else ''}")


def shade(value: float, low: float, high: float) -> int:
    """Which of nine shades a value has between low and high."""
    return 8 if high <= low else min(max(int((value - low) / (high - low) * 8.999), 0), 8)
