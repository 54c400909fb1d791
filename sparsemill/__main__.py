"""Start the command line: `sparsemill`, or `python -m sparsemill` from a copy of the sources."""

from __future__ import annotations

import sys

from sparsemill.installation import ForeignPackageError, check_packages


def main() -> int:
    """Run the command of this process; its exit code."""
    try:
        check_packages()
    except ForeignPackageError as error:
        print(f"sparsemill: {error}", file=sys.stderr)
        return 2
    from sparsemill.commands import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
