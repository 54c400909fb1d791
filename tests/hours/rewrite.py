"""Live an hour anew: in an environment with only the wheel, from a folder that holds what its person has."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from tests.hours.ground import ground_of
from tests.hours.neutral import neutral, pieces
from tests.hours.transcript import run_again

HERE = Path(__file__).parent
HOURS = ("researcher", "safety", "platform")


def page_of(name: str) -> Path:
    """Where the golden file of an hour lies."""
    return HERE / f"{name}.md"


def lived_again(name: str, environment: Path) -> tuple[str, list[str]]:
    """What the golden file of an hour would say if it were written now, and pieces of other people's texts in it.

    Args:
        name: Of the hour.
        environment: A virtual environment that has the wheel.
    """
    page = page_of(name).read_text(encoding="utf-8")
    with (
        tempfile.TemporaryDirectory(prefix="hour-") as home,
        ground_of(name, Path(home), environment / "bin") as ground,
    ):
        places = {str(environment): "~/venv", home: "~"}
        now = run_again(page, ground.folder, ground.environment, functools.partial(neutral, places=places))
    return now, pieces(now, ground.texts)
