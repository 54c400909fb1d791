"""Write the reference pages and the JSON Schemas, or with `--check` only name those that are stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from docs.tooling import commands, keys, names, outputs
from featurestore.base.json_text import json_text

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "docs" / "reference"
SCHEMAS = ROOT / "featurestore" / "specs" / "schemas"


def made() -> Iterator[tuple[Path, str]]:
    """Every file that is made from the code, and what it should hold."""
    yield REFERENCE / "commands.md", commands.page()
    for name, kind in keys.kinds().items():
        yield REFERENCE / f"{name}.md", keys.page(name, kind)
        yield SCHEMAS / f"{name}.schema.json", json_text(keys.schema(kind), indent=1) + "\n"
    yield REFERENCE / "names.md", names.page()
    yield REFERENCE / "json.md", outputs.page()
    for shape in outputs.SHAPES:
        yield REFERENCE / "schemas" / outputs.file_name(shape), json_text(outputs.schema(shape), indent=1) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Write what is stale; with `--check` write nothing, and 1 if something is."""
    parser = argparse.ArgumentParser(prog="python -m docs.tooling", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is stale")
    args = parser.parse_args(argv)
    files = dict(made())
    gone = [path for path in (REFERENCE / "schemas").glob("*") if path not in files]
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if not args.check:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], encoding="utf-8")
        for path in gone:
            path.unlink()
    for path in [*stale, *gone]:
        print(f"{path.relative_to(ROOT)} {'is stale' if args.check else 'written'}", file=sys.stderr)
    return 1 if args.check and (stale or gone) else 0


if __name__ == "__main__":
    sys.exit(main())
