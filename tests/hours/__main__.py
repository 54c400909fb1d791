"""Write golden files anew: `python -m tests.hours --write [NAME ...]`, some minutes each."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.hours.rewrite import HOURS, lived_again, page_of
from tests.wheel import build, copy_source, make_environment


def main() -> None:
    """Write them, or say what there is."""
    parser = argparse.ArgumentParser(prog="python -m tests.hours", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", nargs="*", choices=HOURS, metavar="NAME", required=True, help=", ".join(HOURS))
    parser.add_argument("--environment", type=Path, help="that has the wheel already (default: one is made)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = args.environment
        if environment is None:
            wheel = build(".", Path(folder) / "wheel", copy_source(Path(folder) / "source"))
            environment = make_environment(wheel, Path(folder) / "venv")
        for name in args.write or HOURS:
            now, shown = lived_again(name, environment)
            page_of(name).write_text(now, encoding="utf-8")
            print(f"{page_of(name).name} is written" + (f"; it shows texts of other people: {shown}" if shown else ""))


if __name__ == "__main__":
    main()
