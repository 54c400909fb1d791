"""Charts are well-formed whatever they are given, and leave out what is undefined."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.training.report.hostile import HOSTILE
from training.report.elements.charts import Curve, Scale, bars, curves, reliability, steps
from training.report.elements.svg import grid, shade

NAN = float("nan")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_labels_leave_a_chart_well_formed(text: str) -> None:
    svg = grid([text, "b"], [text, "d"], [[("1", 0), ("2", 8)], [("", None), ("3", 4)]], text, text, text)
    root = ElementTree.fromstring(str(svg))
    assert {element.tag for element in root.iter()} <= {"svg", "rect", "text"}


def test_an_undefined_interval_is_no_point() -> None:
    scale = Scale.over([{"value": 0.5, "low": 0.4, "high": 0.6}, {"value": None}], None)
    assert "circle" in scale.row({"value": 0.5, "low": 0.4, "high": 0.6}, "sae")
    assert "circle" not in scale.row({"value": None, "low": None, "high": None}, "sae")
    assert "circle" not in scale.row(None, "sae")


def test_a_scale_holds_all_intervals_and_the_mark() -> None:
    scale = Scale.over([{"value": 0.5, "low": 0.4, "high": 0.6}], 0.1)
    assert scale.low < 0.1 and scale.high > 0.6


def test_curves_skip_undefined_points_and_are_nothing_without_any() -> None:
    assert curves([Curve("a", [(0, NAN, None, None)], "sae")], "x", "y", "says") == ""
    svg = curves([Curve("a", [(0, 0.5, 0.4, 0.6), (1, NAN, None, None), (2, 0.7, 0.6, 0.8)], "sae")], "x", "y", "says")
    assert svg.count("<circle") == 2 and "nan" not in svg


def test_every_chart_says_what_it_shows() -> None:
    drawn = [
        steps([([(0.0, 1.0), (1.0, 0.5)], "stroke sae")], "x", "y", "it says"),
        reliability([{"confidence": 0.7, "right": 0.6, "low": 0.5, "high": 0.7, "n": 10}], "it says"),
        bars([1, 2], ["0", "1", "2"], "x", "y", "it says"),
    ]
    assert all('role="img"' in svg and 'aria-label="it says"' in svg for svg in drawn)


def test_shades_span_the_range() -> None:
    assert [shade(v, 0.0, 1.0) for v in (-1, 0, 0.5, 1, 2)] == [0, 0, 4, 8, 8]
