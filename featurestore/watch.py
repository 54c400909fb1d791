"""Show how a run stands until it ends: a page that is painted again on a terminal, lines or JSON lines elsewhere.

Only the store is asked, as `status` asks it, so watching costs a run nothing and can be left at any time.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from featurestore.base.json_text import print_json
from featurestore.base.number_words import counted, duration
from featurestore.base.terminal import cut_to, is_dumb, page_width
from featurestore.checks.holder import writer_of
from featurestore.checks.run_files import BEAT_SECONDS
from featurestore.format.store_plan import open_root
from featurestore.status import run_status
from featurestore.storage.files import is_local

if TYPE_CHECKING:
    from featurestore.status import RunStatus

LOCAL_SECONDS = 2.0  # between two looks at a disk; elsewhere a look costs requests, and runs write every BEAT_SECONDS


def watch(
    store: str,
    lines: Callable[[str, RunStatus], Sequence[str]],
    document: Callable[[str, RunStatus], dict[str, object]] | None = None,
) -> int:
    """Show a store until no run writes it, or until Ctrl-C.

    Args:
        store: Its path or URL.
        lines: The page of how it stands.
        document: The same as JSON; given where documents are wanted, one a line.

    Returns:
        The exit code: 0 if the store is complete or watching was ended, 1 if the run ended and left it incomplete.

    Raises:
        StoreError: There is no store, or a part cannot be read.
    """
    paints = document is None and sys.stdout.isatty() and not is_dumb()
    fs, root = open_root(store)
    seconds = LOCAL_SECONDS if is_local(fs) else BEAT_SECONDS
    painted, before = 0, ""
    try:
        while True:
            now = run_status(store)
            ended = now.complete or not (now.running or now.missed or writer_of(fs, root) is not None)
            if paints:
                painted = _paint(lines(store, now), painted)
            elif (counts := _counts(now)) != before or ended:
                before = counts
                print_json(document(store, now)) if document else print(_line(now), flush=True)
                sys.stdout.flush()
            if ended:
                return 0 if now.complete else 1
            time.sleep(seconds)
    except KeyboardInterrupt:
        return 0


def _paint(lines: Sequence[str], painted: int) -> int:
    """Put a page in the place of one of so many lines; how many lines it has."""
    room = max(shutil.get_terminal_size().lines - 1, 1)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"... and {counted(len(lines) - room + 1, 'more line')}"]
    # A line that the terminal breaks would be two, and the next page would begin too low.
    fitting = [line if "\x1b" in line else cut_to(line, page_width()) for line in lines]
    back = f"\x1b[{painted}F\x1b[J" if painted else ""
    print(back + "\n".join(fitting), flush=True)
    return len(fitting)


def _counts(now: RunStatus) -> str:
    """What has to change before there is another line."""
    return f"{now.units_done} {now.rows_done} {now.errors} {now.units_failed} {now.running} {now.units_running}"


def _line(now: RunStatus) -> str:
    state = "complete" if now.complete else "running" if now.running else "incomplete"
    if now.missed:
        state = f"last heard of {duration(now.seconds_silent or 0)} ago"
    parts = [
        f"{time.strftime('%H:%M:%S')}  {state}: {now.rows_done:,} of {counted(now.rows, 'document')}",
        f"{now.units_done:,} of {counted(now.units, 'unit')}",
        f"{now.errors:,} with an error",
    ]
    if now.tokens_per_second is not None:
        parts.append(f"{now.tokens_per_second:,.0f} tokens/s")
    if now.seconds_left is not None and now.running:
        parts.append(f"{duration(now.seconds_left)} left")
    return ", ".join(parts)
