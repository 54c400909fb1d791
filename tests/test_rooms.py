"""The rooms of the house: no import leads back to where it came from, and docs/design.md shows them as they are."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from tests.rooms import PACKAGES, ROOT, arrows, circles, imports, modules, picture, room_of

MOST_FILES = 17  # of a room, its __init__ counted


def test_no_module_imports_itself_through_others() -> None:
    assert circles(imports(modules())) == []


def test_arrows_between_rooms_run_one_way() -> None:
    assert circles(arrows(modules(PACKAGES))) == []


def test_a_circle_would_be_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()})
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_picture_in_the_design_is_what_the_sources_say() -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert f"```text\n{picture()}\n```" in page, "python -m tests.rooms prints the picture as it is now"


def test_rooms_can_be_held_in_the_head() -> None:
    known = modules(PACKAGES)
    sizes: dict[str, int] = {}
    for module in known:
        sizes[room_of(module, known)] = sizes.get(room_of(module, known), 0) + 1
    assert max(sizes.values()) <= MOST_FILES, sizes


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_says_what_it_is_for(package: str) -> None:
    for folder in {path.parent for path in (ROOT / package).rglob("*.py")}:
        first = (folder / "__init__.py").read_text(encoding="utf-8").split("\n")[0]
        assert first.startswith('"""') and len(first) > 30, folder


def test_no_two_modules_say_the_same_of_themselves() -> None:
    """A newcomer who reads only first lines finds the one file that a question is about."""
    said: dict[str, Path] = {}
    for path in modules(PACKAGES).values():
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
        assert len(first) > 30, f"{path} does not say what it is for"
        assert said.setdefault(first, path) == path, f"{path} and {said[first]} begin alike"


def test_packages_are_found_and_not_listed() -> None:
    """A room that a list forgot would be missing in the wheel."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert packages["find"]["include"] == ["sparsemill", "featurestore*", "ray_jobs*", "training*"]


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_mirror_the_rooms(package: str) -> None:
    """A test of a module lies where the module lies; tests of whole packages lie at the top."""
    for path in (ROOT / "tests" / package).rglob("test_*.py"):
        folder = path.parent.relative_to(ROOT / "tests")
        assert (ROOT / folder).is_dir(), f"{path} tests no room"
        if folder != Path(package):
            assert any((ROOT / folder).glob("*.py"))
