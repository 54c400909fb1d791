"""The rooms of the house: no import leads back to where it came from, and docs/design.md shows them as they are."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.rooms import PACKAGES, ROOT, arrows, circles, imports, modules, picture, room_of

REFERENCE = re.compile(r"`((?:ray_jobs|featurestore|training|sparsemill)(?:\.[A-Za-z_]\w*)+)(?:\(\))?`")
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


def test_modules_and_their_names_that_prose_points_to_are_there() -> None:
    known = modules()
    said = {(name, found) for name, path in known.items() for found in REFERENCE.findall(path.read_text("utf-8"))}
    gone = [(name, one) for name, one in sorted(said) if one not in known and not _defines(known, one)]
    assert len(said) > 50 and gone == []
    assert _defines(known, "training.spec.StudySpec.out") and not _defines(known, "training.spec.Nothing.out")


def _defines(known: Mapping[str, Path], reference: str) -> bool:
    """Whether a module has a name, or something that it has does."""
    module, _, name = reference.rpartition(".")
    if module not in known:
        return "." in module and _defines(known, module)
    return re.search(rf"\b{name}\b", known[module].read_text("utf-8")) is not None


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
