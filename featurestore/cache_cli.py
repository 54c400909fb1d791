"""The command `cache`: what this machine keeps so that it need not be made again, and removing it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.hostile_text import shortened
from featurestore.base.json_text import print_json
from featurestore.base.number_words import counted, size
from featurestore.base.terminal import print_facts, print_page, table_lines
from featurestore.errors import UsageError
from featurestore.storage.cache import cache_path
from featurestore.storage.cached import KEPT, KINDS, Cached, cached, remove, unused_since

SHOWN = 48  # characters of a name on the page; --json has all of them


def cache_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `sparsemill cache`."""
    parser.description = (
        "List what this machine keeps so that it need not be made again, or remove it. Stores, studies and their "
        "evidence are not in the cache."
    )
    parser.epilog = (
        "examples:\n"
        "  sparsemill cache list\n"
        "  sparsemill cache clean --unused 30           what nobody used for thirty days\n"
        "  sparsemill cache clean --kind bundles --dry-run\n\n"
        f"kinds: {', '.join(KINDS)}. Names of features are removed only with --kind names.\n"
        "Something that a running command still reads is safe: its file stays until that command closes it."
    )
    parser.add_argument("action", choices=("list", "clean"), help="say what is there, or remove it")
    parser.add_argument("--kind", action="append", metavar="KIND", help="only this kind; may be given again")
    parser.add_argument("--unused", type=_days, default=0.0, metavar="DAYS", help="only what was not used for so long")
    parser.add_argument("--dry-run", action="store_true", help="of clean: say what would go, and keep it")


def cache(args: argparse.Namespace) -> int:
    """Run `sparsemill cache`."""
    for kind in args.kind or ():
        if kind not in KINDS:
            raise UsageError(f"--kind: there is no '{kind}' in the cache{did_you_mean(kind, KINDS)}")
    if args.dry_run and args.action == "list":
        raise UsageError("--dry-run is of `cache clean`; `cache list` removes nothing anyway")
    kinds = args.kind or [kind for kind in KINDS if args.action == "list" or kind not in KEPT]
    found = [one for one in cached(kinds) if unused_since(one, args.unused)]
    if args.action == "list":
        return _list(found, kinds, args.json)
    gone = found if args.dry_run else [one for one in found if remove(one)]
    busy = len(found) - len(gone)
    if args.json:
        return print_json({**_place(), "removed": [_row(one) for one in gone], "dry_run": args.dry_run, "busy": busy})
    what = "would be removed" if args.dry_run else "removed"
    for one in gone:
        print_page(f"{what}: {one.path} ({size(one.size)})")
    print_page(f"{counted(len(gone), 'thing')} {what}, {size(sum(one.size for one in gone))}")
    if busy:
        print(f"{counted(busy, 'thing')} kept: another process makes it just now", file=sys.stderr)
    return 0


def _list(found: Sequence[Cached], kinds: Sequence[str], as_json: bool) -> int:
    if as_json:
        return print_json(
            {**_place(), "bytes": sum(one.size for one in found), "entries": [_row(one) for one in found]}
        )
    print_page(f"{cache_path('')}: {size(sum(one.size for one in found))}")
    rows = [
        (one.kind, shortened(one.path.name, SHOWN), size(one.size), _day(one.used), shortened(one.about, SHOWN))
        for one in found
    ]
    if rows:
        header = ("kind", "name", "size", "last used", "about")
        print("\n".join(table_lines([header, *rows], left=(0, 1, 3, 4), naming=2)))
    print_facts([(kind, KINDS[kind]) for kind in kinds if any(one.kind == kind for one in found)])
    return 0


def _place() -> dict[str, object]:
    return {"version": 1, "cache": str(cache_path(""))}


def _row(one: Cached) -> dict[str, object]:
    used = datetime.fromtimestamp(one.used, UTC).isoformat(timespec="seconds")
    return {"kind": one.kind, "path": str(one.path), "bytes": one.size, "last_used": used, "about": one.about}


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d")


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number of days, not {text!r}")
    return days
