"""Sparse-autoencoder features of text corpora, and classifiers over them.

`import sparsemill as sm`, then `sm.extract(job)`, `sm.study(study)`, `sm.open(place)`: what the commands do, with
frames and pages for notebooks in place of text. Names are loaded on first use, so the import itself takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparsemill.version import __version__ as __version__

if TYPE_CHECKING:
    from sparsemill.commands import COMMANDS as COMMANDS
    from sparsemill.commands import command_parser as command_parser
    from sparsemill.commands import main as main

_HOME: dict[str, str] = {}
__all__ = sorted(_HOME)
_COMMAND_LINE = ("COMMANDS", "command_parser", "main")


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives (PEP 562)."""
    home = "sparsemill.commands" if name in _COMMAND_LINE else _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'sparsemill' has no attribute {name!r}")
    from sparsemill.surroundings import check_packages

    check_packages()
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
