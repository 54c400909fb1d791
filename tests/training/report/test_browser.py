"""Pages in a browser with the network off: nothing is asked for, nothing runs that is not ours, all can read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report_size import make_study
from tests.training.report.hostile import HOSTILE
from training.report.store_page import store_report
from training.report.study_page import study_report


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return study_report(str(make_study(tmp_path_factory.mktemp("made") / "study", 12, 6)))


LOOKS = [(width, look) for look in ("light", "dark", "print") for width in (1400, 390)]
OUT_OF_REACH = """[...document.querySelectorAll("*")].filter(
    e => ["auto", "scroll"].includes(getComputedStyle(e).overflowX) && e.tabIndex < 0 && !e.querySelector("a, button")
).map(e => e.outerHTML.slice(0, 99))"""
"""What may scroll sideways, on a page with more classes than this one's, and no key gets to."""
QUICK = [(390, "light")]


@pytest.mark.parametrize(
    ("width", "look"), [pytest.param(*one, marks=() if one in QUICK else pytest.mark.slow) for one in LOOKS]
)
def test_a_page_is_silent_fits_and_has_nothing_serious_for_axe(
    opened: Callable[..., Any], axe: str, html: bytes, width: int, look: str
) -> None:
    shown = opened(html, width, "dark" if look == "dark" else "light")
    if look == "print":  # on paper, whose width is another's to choose
        shown.page.emulate_media(media="print")
    else:
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    shown.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert shown.page.evaluate(OUT_OF_REACH) == []
    shown.page.evaluate(axe)
    serious = [v for v in shown.page.evaluate("axe.run()")["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"]) for v in serious] == []
    assert shown.heard == []


def test_tables_sort_by_number_and_by_name(opened: Callable[..., Any], html: bytes) -> None:
    page = opened(html).page
    head = page.locator("#tried table.sort thead th", has_text="macro F1")
    values = "[...document.querySelectorAll('#tried table.sort tbody td:nth-child(2)')].map(c => +c.textContent)"
    head.locator("button").click()
    found = page.evaluate(values)
    assert found == sorted(found, reverse=True) and head.get_attribute("aria-sort") == "descending"
    head.locator("button").click()
    assert page.evaluate(values) == sorted(found)


def test_a_table_filters_and_says_how_many_are_left(opened: Callable[..., Any], html: bytes) -> None:
    page = opened(html).page
    page.get_by_label("Filter methods").fill("tfidf")
    assert page.locator("#tried table.sort tbody tr:visible").count() == 1
    assert page.locator("#tried [role=status]").inner_text() == "1 of 13"


def test_a_feature_opens_its_evidence_by_click_by_link_and_by_jump(opened: Callable[..., Any], html: bytes) -> None:
    page = opened(html).page
    card = page.locator("details.card:not([open])").first.element_handle()
    card = page.locator(f"[id='{card.get_attribute('id')}']")
    assert not card.locator("mark").first.is_visible()
    card.locator("summary").click()
    assert card.locator("mark").first.is_visible()
    link = page.locator("#errors a").first
    target = page.locator(f"[id='{link.get_attribute('href')[1:]}']")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")
    link.click()
    page.wait_for_function("document.querySelector('details.card[open]') !== null")
    assert target.locator("mark").first.is_visible()
    page.get_by_label("Jump to").fill("l9_4k:3")
    page.get_by_label("Jump to").press("Enter")
    page.get_by_label("Jump to").blur()
    assert page.locator("[id='f-l9_5f_4k_3a_3']").evaluate("d => d.open")


def test_everything_is_there_without_scripts(opened: Callable[..., Any], html: bytes) -> None:
    page = opened(html, scripts=False).page
    assert page.locator("section").count() >= 8
    assert page.locator("#tried tbody tr").count() > 10
    assert page.locator("details.card[open] mark").first.is_visible()
    assert page.locator("details.card:not([open]) mark").first.is_hidden()
    page.locator("details.card:not([open]) summary").first.click()
    assert page.locator("details.card[open]").count() == 2
    assert page.locator("button").count() == 0


def test_sixty_hostile_strings_execute_nothing(opened: Callable[..., Any], tmp_path: Path) -> None:
    assert len(HOSTILE) == 60
    study = make_study(tmp_path / "study", 70, 30, classes=(HOSTILE[1], HOSTILE[4]), strange=HOSTILE)
    shown = opened(study_report(str(study)))
    shown.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for name in ("#tried input", ".cards + * input, .tools input"):
        shown.page.locator(name).first.fill("<img src=x onerror=alert(1)>")
    shown.page.wait_for_timeout(200)
    assert shown.heard == []
    assert shown.page.locator("script").count() == 1
    assert shown.page.locator("main section").count() >= 9
    assert shown.page.locator("img, iframe, object, embed, form, base, link").count() == 0


def test_the_policy_stops_a_script_that_would_get_in(opened: Callable[..., Any], html: bytes) -> None:
    spoiled = html.replace(
        b'<main id="main">', b"<main id=\"main\"><script>window.bad = 1</script><b style='color:red'>x</b>"
    )
    shown = opened(spoiled)
    assert shown.page.evaluate("window.bad") is None
    assert len(shown.heard) == 2 and all("Content Security Policy" in said for said in shown.heard)


def test_the_page_of_a_store_is_silent_too(opened: Callable[..., Any], axe: str, store: str) -> None:
    shown = opened(store_report(store), 390, "dark")
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert shown.page.evaluate(OUT_OF_REACH) == []
    shown.page.evaluate(axe)
    serious = [v for v in shown.page.evaluate("axe.run()")["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"]) for v in serious] == [] and shown.heard == []
