"""A transcript: prose, and commands as typed with what they printed; read from a page, run anew, written back.

A page is Markdown. Each block ```` ```console ```` is one command: `$ ` and the command, `> ` and its further lines,
then its output (stdout and stderr as they came), then `[exit code N]` where that is not 0. A block ```` ```yaml ````
whose first line is `# NAME.yaml` is a file that the person writes. A comment `<!-- wait for PATTERN -->` waits until a
file is there. All else is prose and stays as it is.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SECONDS = 900  # for one command; the longest takes a minute on two idle cores
_BLOCK = re.compile(
    r"^```console\n(?P<typed>\$ .*\n(?:> .*\n)*)(?P<said>(?:(?!```).*\n)*)```$"
    r"|^```yaml\n(?P<yaml># (?P<name>[\w./-]+\.yaml)\n(?:(?!```).*\n)*)```$"
    r"|^<!-- wait for (?P<pattern>\S+) -->$",
    re.M,
)


@dataclass(frozen=True)
class Call:
    """A command as typed, and what came of it.

    Attributes:
        typed: The command, in one string for a shell.
        said: Lines of output, the exit code's included.
    """

    typed: str
    said: str


def calls_of(page: str) -> Iterator[Call]:
    """The commands of a page, in order."""
    for block in _BLOCK.finditer(page):
        if block["typed"]:
            yield Call(_command(block["typed"]), block["said"])


def run_again(page: str, folder: Path, environment: Mapping[str, str], neutral: Callable[[str], str]) -> str:
    """Do what a page says, from top to bottom, and return it with what the commands print now.

    Args:
        page: Its outputs are not read.
        folder: Where the person works.
        environment: Of the commands.
        neutral: Makes an output neutral.
    """

    def again(block: re.Match[str]) -> str:
        if block["name"]:
            (folder / block["name"]).write_text(block["yaml"], encoding="utf-8")
        elif block["pattern"]:
            _wait_for(folder, block["pattern"])
        else:
            said = neutral(_run(_command(block["typed"]), folder, environment))
            return f"```console\n{block['typed']}{said}```"
        return block[0]

    return _BLOCK.sub(again, page)


def _command(typed: str) -> str:
    return "\n".join(line[2:] for line in typed.splitlines())


def _run(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    """What a command prints on both streams, as a terminal would show it, and its exit code where that is not 0."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, text=True, errors="replace", timeout=SECONDS, **streams
    )
    said = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
    return said + (f"[exit code {done.returncode}]\n" if done.returncode else "")


def _wait_for(folder: Path, pattern: str) -> None:
    until = time.monotonic() + SECONDS
    while not any(folder.glob(pattern)):
        assert time.monotonic() < until, f"there is no {pattern}"
        time.sleep(0.1)
