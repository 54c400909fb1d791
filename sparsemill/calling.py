"""Call stage 1 from Python: its libraries are quiet for as long as it lasts, a missing package is one sentence."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sparsemill.surroundings import missing

P = ParamSpec("P")
R = TypeVar("R")


def of_stage_one(function: Callable[P, R]) -> Callable[P, R]:
    """A function that uses Ray, torch and transformers.

    What they would print and warn of is kept away while it runs, and only then; a package that is not installed is a
    ModuleNotFoundError that says how to install it.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        from ray_jobs.quiet import silence_libraries

        disabled = logging.root.manager.disable
        try:
            with warnings.catch_warnings():
                silence_libraries()
                return function(*args, **kwargs)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(missing(f"sparsemill.{function.__name__}", error), name=error.name) from error
        finally:
            logging.disable(disabled)

    return called
