"""Put the figures of recorded runs into the pages: `python -m benchmarks.publish`.

A page says where: a line `<!-- figures: NAME -->`, and `<!-- end of figures -->` below what is generated. NAME is one
of `benchmarks.figures.FIGURES`, which makes the text from the newest record of each measurement in results/. Text
outside the markers is left as it is; a test fails where a page does not say what its records say.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from benchmarks.figures import FIGURES
from benchmarks.records import newest_records

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n)(.*?)(<!-- end of figures -->)", re.S)


def main(argv: list[str] | None = None) -> int:
    """Write the pages, or with `--check` only name those that are stale; 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is stale")
    args = parser.parse_args(argv)
    records, stale = newest_records(), []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (now := published(text, records)) != text:
            stale.append(page)
            if not args.check:
                page.write_text(now, encoding="utf-8")
    for page in stale:
        print(f"{page.relative_to(ROOT)} {'is stale' if args.check else 'written'}", file=sys.stderr)
    return 1 if stale and args.check else 0


def published(text: str, records: dict[str, dict]) -> str:
    """A page with every block between markers made anew from the records.

    Raises:
        SystemExit: A block names no figures, or its end is missing.
    """
    if len(_BLOCK.findall(text)) != len(re.findall(r"<!-- (?:figures: |end of figures)", text)) / 2:
        sys.exit("a marker '<!-- figures: NAME -->' has no '<!-- end of figures -->' below it, or the other way round")
    for _, name, _, _ in _BLOCK.findall(text):
        if name not in FIGURES:
            sys.exit(f"there are no figures '{name}'; there are: {', '.join(FIGURES)}")
    return _BLOCK.sub(lambda block: f"{block[1]}{FIGURES[block[2]](records)}\n{block[4]}", text)


if __name__ == "__main__":
    sys.exit(main())
