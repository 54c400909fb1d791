"""Turn exceptions of other libraries into ours, at the places where those libraries are called.

What a library raises when a disk is full is a matter of taste: safetensors, tokenizers and polars have types of their
own and only words, Python and pyarrow an OSError without a path. Inside `writing` all of them are the OSError that they
mean, with number and path. Inside `reading` whatever goes wrong with a file is one sentence about it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from featurestore.errors import SparsemillError
from featurestore.url_secrets import shown, without_secrets

_NUMBER = re.compile(r"\b(?:os error|errno) (\d+)", re.IGNORECASE)  # as Rust and Arrow end and begin their messages
_CHARACTERS = 200  # of a foreign message; a sentence, not a page


@contextmanager
def writing(place: str | os.PathLike[str]) -> Iterator[None]:
    """Let what the system refused to write name its path.

    Args:
        place: What is written, for exceptions that do not say.

    Raises:
        OSError: In place of any exception that holds a number of the system's, with that number and a path.
    """
    try:
        yield
    except SparsemillError:
        raise
    except Exception as exc:
        told = _NUMBER.search(str(exc))
        number = getattr(exc, "errno", None) or (int(told[1]) if told else None)
        if number is None or getattr(exc, "filename", None) is not None:
            raise
        raise OSError(number, os.strerror(number), shown(os.fspath(place))) from exc


@contextmanager
def reading(place: str | os.PathLike[str], error: type[SparsemillError], advice: str) -> Iterator[None]:
    """Turn any exception of a library into a sentence about the file that it read.

    Args:
        place: The file.
        error: What to raise.
        advice: What to do, the end of the sentence.
    """
    try:
        yield
    except (SparsemillError, MemoryError):
        raise
    except Exception as exc:
        raise error(f"{shown(os.fspath(place))} cannot be read ({brief(exc)}); {advice}") from exc


def brief(error: BaseException) -> str:
    """An exception in a few words, for the middle of a sentence; what the system refused without its type."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    return named(error)


def named(error: BaseException) -> str:
    """An exception in one line with its type, for whoever looks into it; ours are sentences as they are."""
    if isinstance(error, SparsemillError):
        return str(error)
    return f"{type(error).__name__}: {without_secrets(' '.join(str(error).split()))[:_CHARACTERS]}".rstrip(": ")
