"""Call stage 1 from Python: its libraries are quiet for as long as it lasts, a missing package is one sentence."""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from featurestore.errors import UsageError
from sparsemill.installation import missing


def path_of(value: object, name: str) -> str:
    """The path that an argument is.

    Args:
        value: What was given.
        name: Of the argument, and what else it may be, as a sentence says it.

    Raises:
        UsageError: It is no path.
    """
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    raise UsageError(f"{name} must be a path, not {type(value).__name__}")


def count_of(value: object, name: str, least: int) -> int:
    """The whole number that an argument is, of at least `least`; UsageError where it is none."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise UsageError(f"{name} must be a whole number of at least {least}, not {value!r}")


P = ParamSpec("P")
R = TypeVar("R")


def of_stage_one(function: Callable[P, R]) -> Callable[P, R]:
    """A function that uses Ray, torch and transformers.

    What they would print and warn of is kept away while it runs, and only then; a package that is not installed is a
    ModuleNotFoundError that says how to install it.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        from ray_jobs.quiet import QUIET, silence_libraries

        disabled = logging.root.manager.disable
        ours = [name for name in QUIET if name not in os.environ]
        try:
            with warnings.catch_warnings():
                silence_libraries()
                return function(*args, **kwargs)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(missing(f"sparsemill.{function.__name__}", error), name=error.name) from error
        finally:
            logging.disable(disabled)
            for name in ours:
                os.environ.pop(name, None)

    return called
