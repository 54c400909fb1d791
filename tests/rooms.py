"""The rooms of the house and what they ask of one another, read from the sources.

A room is a folder of a package; a file that lies in the package itself is a room of its own. Every import counts,
wherever in a file it stands. `python -m tests.rooms` prints the picture that docs/design.md shows.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("ray_jobs", "training", "featurestore")
WIDTH = 100  # of a line of the picture


def modules(packages: Collection[str] = (*PACKAGES, "benchmarks")) -> dict[str, Path]:
    """Every module of our packages by its dotted name; `__init__.py` has the name of its folder."""
    found = {}
    for package in ("sparsemill", *packages):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(known: Mapping[str, Path]) -> dict[str, set[str]]:
    """Module -> the modules among `known` that it imports, in functions and for type checking too."""
    return {name: set(_imported(path, known)) - {name} for name, path in known.items()}


def _imported(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in known or node.module in known:
                    yield whole if whole in known else node.module


def room_of(module: str, known: Mapping[str, Path]) -> str:
    """The folder that a module lies in, or the module itself where that is a package of ours."""
    if known[module].name == "__init__.py":
        return module
    folder = module.rpartition(".")[0]
    return module if folder in ("", *PACKAGES, "benchmarks") else folder


def arrows(known: Mapping[str, Path]) -> dict[str, set[str]]:
    """Room -> the other rooms that its files import."""
    found: dict[str, set[str]] = {}
    for module, imported in imports(known).items():
        here = found.setdefault(room_of(module, known), set())
        here |= {room_of(other, known) for other in imported}
    return {room: others - {room} for room, others in found.items()}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """What leads back to itself; empty in a sound house."""
    left = {node: set(targets) for node, targets in graph.items()}
    while free := [node for node, targets in left.items() if not targets & left.keys()]:
        for node in free:
            del left[node]
    return [[node, *sorted(targets & left.keys())] for node, targets in sorted(left.items())]


def picture() -> str:
    """Every room after the rooms that ask something of it, so that each arrow points down; other packages are left out.

    `errors`, `url_secrets` and `spec`, which nearly everything may import, are not repeated in each line.
    """
    known = modules(PACKAGES)
    graph = arrows(known)
    lines: list[str] = []
    for package in PACKAGES:
        inside = {room: {o for o in graph[room] if o.startswith(f"{package}.")} for room in graph}
        left = {room: inside[room] for room in graph if room.startswith(f"{package}.")}
        lines += ["", f"{package}/"] if lines else [f"{package}/"]
        while left:
            asked = set().union(*left.values())
            top = min((room for room in left if room not in asked), key=lambda room: (-len(left[room]), room))
            files = sum(room_of(module, known) == top and module != top for module in known)
            ending = f"/ ({files})" if files else "/" if known[top].name == "__init__.py" else ".py"
            name = top.removeprefix(f"{package}.") + ending
            names = sorted(o.removeprefix(f"{package}.") for o in left.pop(top))
            shown = [other for other in names if other not in ("errors", "url_secrets", "spec")]
            lines += _wrapped(f"  {name:<26}", shown)
    return "\n".join(lines)


def _wrapped(head: str, names: list[str]) -> list[str]:
    lines, line = [], head + (" -> " if names else "")
    for name in names:
        piece = f"{name}, " if name != names[-1] else name
        if len(line) + len(piece) > WIDTH:
            lines.append(line.rstrip())
            line = " " * len(head) + "    "
        line += piece
    return [*lines, line.rstrip()]


if __name__ == "__main__":
    print(picture())
