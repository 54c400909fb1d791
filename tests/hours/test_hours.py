"""An hour of three strangers: what they type into an empty folder, with only the wheel, and what answers them.

The golden files beside this one are meant to be read. `python -m tests.hours --write` writes them anew.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from pathlib import Path

import pytest

import sparsemill
from tests.hours.neutral import RULES, Rule, neutral, pieces
from tests.hours.rewrite import HOURS, lived_again, page_of
from tests.hours.transcript import calls_of, run_again
from tests.wheel import build, copy_source, make_environment

PAGES = {name: page_of(name).read_text(encoding="utf-8") for name in HOURS}
PLACES = re.compile(r"/(?:tmp|home|root|work|var|Users|opt)/|\\Users\\")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of somebody who has installed the wheel; dependencies are borrowed, the project is not."""
    folder = tmp_path_factory.mktemp("wheel")
    return make_environment(build(".", folder / "built", copy_source(folder / "source")), folder / "venv")


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", HOURS)
def test_an_hour_goes_as_its_page_says(name: str, environment: Path) -> None:
    now, shown = lived_again(name, environment)
    assert not shown, "texts of other people are shown"
    diff = difflib.unified_diff(PAGES[name].splitlines(), now.splitlines(), f"{name}.md", "now", lineterm="")
    if changed := "\n".join(diff):
        pytest.fail(f"`python -m tests.hours --write {name}` writes it anew, if this is as it should be:\n{changed}")


@pytest.mark.parametrize("name", HOURS)
def test_every_command_of_an_hour_is_one_that_the_program_understands(name: str) -> None:
    lines = [line for call in calls_of(PAGES[name]) for line in re.split(r"&&|\||\n", call.typed)]
    commands = [shlex.split(line)[1:] for line in lines if line.strip().startswith("sparsemill ")]
    assert len(commands) >= 10
    for command, *arguments in commands:
        sparsemill.command_parser(command).parse_args(arguments)


@pytest.mark.parametrize("name", HOURS)
def test_an_hour_names_no_place_of_a_machine_and_nothing_that_a_rule_would_change(name: str) -> None:
    for call in calls_of(PAGES[name]):
        assert not PLACES.search(call.said), call
        assert neutral(call.said) == call.said


@pytest.mark.parametrize("name", HOURS)
def test_an_hour_has_mistakes_and_each_is_answered_in_our_words(name: str) -> None:
    failed = [call for call in calls_of(PAGES[name]) if "[exit code " in call.said]
    assert len(failed) >= 2
    for call in failed:
        assert "Traceback" not in call.said
        assert re.search(r"^sparsemill: |would stop the work$|WRONG|unfinished", call.said, re.M), call


def test_what_is_typed_stays_and_what_was_printed_is_written_anew(tmp_path: Path) -> None:
    page = (
        "# An hour\n\n```yaml\n# a.yaml\nkey: value\n```\n\n<!-- wait for *.yaml -->\n\n"
        "```console\n$ cat a.yaml |\n> tail -1\nkey: an older value\n```\n\n"
        "Then:\n\n```console\n$ echo lost >&2; exit 3\n```\n"
    )
    now = run_again(page, tmp_path, {"PATH": os.environ["PATH"]}, str.upper)
    assert now == page.replace("key: an older value", "KEY: VALUE").replace("exit 3\n", "exit 3\nLOST\n[EXIT CODE 3]\n")
    assert [call.typed for call in calls_of(now)] == ["cat a.yaml |\ntail -1", "echo lost >&2; exit 3"]
    assert run_again(now, tmp_path, {"PATH": os.environ["PATH"]}, str.upper) == now


def test_a_piece_of_a_text_is_found_in_an_output_however_it_is_cut_and_marked() -> None:
    texts = ["Some words, of\nsomebody ELSE who wrote them", "few words"]
    assert pieces("strongest  12  d1  …words, of «somebody» else w…", texts) == []
    assert pieces("strongest  12  d1  …words, of «somebody» else who…", texts) == ["words of somebody else who"]
    assert pieces("few words of a page", texts) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.about)
def test_a_rule_makes_its_example_neutral(rule: Rule) -> None:
    assert re.sub(rule.pattern, rule.put, rule.example, flags=re.M) == rule.becomes != rule.example
    assert neutral(rule.example) == neutral(rule.becomes) == rule.becomes
