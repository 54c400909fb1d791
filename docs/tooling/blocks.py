"""Cut pages into their code blocks, each with what is to become of it.

A block says its language. `bash`, `python` and `yaml` blocks are run in the order in which they stand (a yaml block
whose first line is `# NAME.yaml` becomes that file), `text` is what somebody sees. A line `<!-- not run: REASON -->`
above a block says why it is only parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
RUN = ("bash", "python", "yaml")
SHOWN = ("text", "json", "mermaid")
_FENCE = re.compile(
    r"^(?P<margin>[ ]*)(?:<!-- not run: (?P<reason>[^\n]*?) -->\n[ ]*)?"
    r"```(?P<language>\w*)\n(?P<code>.*?)^[ ]*```$",
    re.S | re.M,
)
_ROOMS = ("featurestore", "ray_jobs", "training", "tests", "benchmarks")


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
        page: The page's path from the root of the project.
        line: Where its first line of code stands.
        language: As the fence names it.
        code: What stands in it.
        reason: Why it is not run; empty where it is.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str

    @property
    def file(self) -> str | None:
        """The name of the file that a yaml block is."""
        found = re.match(r"# ([\w./-]+\.yaml)\n", self.code)
        return found[1] if found and self.language == "yaml" else None


def blocks_of(page: Path) -> Iterator[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(text):
        margin = len(fence["margin"])
        code = "\n".join(line[margin:] for line in fence["code"].split("\n"))
        line = text[: fence.start("code")].count("\n") + 1
        name = page.relative_to(ROOT).as_posix()
        yield Block(name, line, fence["language"], code, (fence["reason"] or "").strip())


def pages() -> list[Path]:
    """Every page of the project, without those that are made and those of other people."""
    found = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "featurestore/FORMAT.md")]
    found += sorted((ROOT / "docs").rglob("*.md"))
    return found + sorted(path for room in _ROOMS for path in (ROOT / room).rglob("README.md"))
