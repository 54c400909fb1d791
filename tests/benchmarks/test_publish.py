"""Figures in the pages are those of the newest records, and a page that says something else is found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import publish, records
from benchmarks.figures import FIGURES
from benchmarks.publish import PAGES, published
from benchmarks.records import newest_records


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_of_a_page_are_those_of_the_newest_records(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert published(text, newest_records()) == text, "stale: python -m benchmarks.publish makes it anew"


def test_every_table_that_is_made_stands_in_a_page() -> None:
    shown = [name for page in PAGES for name in re.findall(r"<!-- figures: ([\w-]+) -->", page.read_text("utf-8"))]
    assert sorted(shown) == sorted(FIGURES)


def test_a_figure_that_was_typed_is_found_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, found = tmp_path / "page.md", newest_records()
    right = published("Above.\n<!-- figures: growth -->\n<!-- end of figures -->\nBelow.\n", found)
    page.write_text(right.replace("10.0 million", "99.0 million"), encoding="utf-8")
    monkeypatch.setattr(publish, "PAGES", (page,))
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    assert publish.main(["--check"]) == 1 and "99.0 million" in page.read_text(encoding="utf-8")
    assert "page.md is stale" in capsys.readouterr().err
    assert publish.main([]) == 0 and page.read_text(encoding="utf-8") == right
    assert publish.main(["--check"]) == 0


@pytest.mark.parametrize("text", ["<!-- figures: growth -->\n", "<!-- end of figures -->\n"])
def test_half_a_marker_is_refused(text: str) -> None:
    with pytest.raises(SystemExit, match="or the other way round"):
        published(text, newest_records())


def test_a_name_without_figures_is_refused() -> None:
    with pytest.raises(SystemExit, match="there are no figures 'nope'; there are: three,"):
        published("<!-- figures: nope -->\n<!-- end of figures -->\n", newest_records())


def test_the_newest_record_of_a_measurement_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("gpu-nvidia-h200-2026-01-02", 1),
        ("gpu-nvidia-h200-2026-01-10", 2),
        ("gpu-job-nvidia-h200-2026-01-01", 3),
        ("study-1000-2-cores-amd-epyc-2026-01-01", 4),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps({"value": value}))
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    assert newest_records() == {"gpu": {"value": 2}, "gpu-job": {"value": 3}, "study-1000": {"value": 4}}
