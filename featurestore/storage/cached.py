"""List what the cache of this machine holds, by kind, and remove what is not needed."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from featurestore.base.library_errors import brief
from featurestore.errors import StoreError
from featurestore.storage.cache import cache_path
from featurestore.storage.node_lock import lock_now

KINDS = {
    "bundles": "models cut at their hooks with SAE encoders; `prepare` builds them again, from hub or disk",
    "converted": "tensors of pickled weights; the next `prepare` that allows the pickle converts it again",
    "spilled": "decompressed corpora; the next `plan` or `extract` decompresses them again",
    "index": "which documents a feature is strongest in; the next `show --feature` builds it again",
    "registry": "verdicts on the SAEs of sae-lens' registry; the next `saes` judges them again",
    "models": "the demo's model; the next `demo` takes it from PyPI again",
    "benchmarks": "inputs of the project's own benchmarks; they make or fetch them again",
    "names": "names of features, some of them imported or generated: not made again by themselves",
}
"""Folder of the cache -> what is in it, and how it comes back."""

BUILDING = ".building-{name}-"
"""What the folder of a bundle that is being built begins with; behind it comes what no other has."""
_BUILDING = re.compile(re.escape(BUILDING).replace(r"\{name\}", "(.+)") + "[^-]+")

KEPT = ("names",)
"""Kinds that are removed only when they are asked for."""


@dataclass(frozen=True)
class Cached:
    """One thing in the cache.

    Attributes:
        kind: One of `KINDS`.
        path: A file or folder.
        size: Bytes.
        used: When it was last read or written, as seconds since 1970.
        about: Of a bundle the model and its SAEs; empty where nothing more is known.
    """

    kind: str
    path: Path
    size: int
    used: float
    about: str = ""


def cached(kinds: Sequence[str] = tuple(KINDS)) -> Iterator[Cached]:
    """Everything in the cache but what is being made, by kind and then by how long it was not used."""
    for kind in kinds:
        found = []
        folder = cache_path(kind)
        for path in folder.iterdir() if folder.is_dir() else ():
            if not path.is_symlink() and path.suffix != ".lock":
                with contextlib.suppress(FileNotFoundError):  # somebody else cleans too
                    one = Cached(kind, path, *_size_and_use(path), _about(path))
                    if not (path.name.startswith(".") and _is_being_made(one)):
                        found.append(one)
        yield from sorted(found, key=lambda one: (one.used, one.path.name))


def remove(one: Cached) -> bool:
    """Remove one thing, unless a process of this machine is making it; whether it is gone.

    Raises:
        StoreError: It cannot be removed.
    """
    with contextlib.ExitStack() as held:
        if not _lock(one, held):
            return False
        try:
            shutil.rmtree(one.path) if one.path.is_dir() else one.path.unlink()
        except FileNotFoundError:
            return True
        except OSError as error:
            raise StoreError(f"{one.path} cannot be removed ({brief(error)}); check who owns it") from None
    for link in one.path.parent.iterdir():  # other names of the same bundle
        if link.is_symlink() and not link.exists():
            link.unlink(missing_ok=True)
    return True


def _lock(one: Cached, held: contextlib.ExitStack) -> bool:
    """Keep others from making a thing for as long as `held` is; False where a process of this machine makes it now."""
    building = _BUILDING.fullmatch(one.path.name)
    lock = cache_path(f"{one.kind}-locks") / (building[1] if building else one.path.name)
    try:
        return not lock.is_file() or lock_now(held.enter_context(lock.open("ab")))
    except OSError:  # storage that knows no locks tells nothing
        return False


def _is_being_made(one: Cached) -> bool:
    """Whether what is half made is not left of a killed process: whoever makes it holds its lock, or wrote today."""
    if not _BUILDING.fullmatch(one.path.name):
        return not unused_since(one, 1)
    with contextlib.ExitStack() as held:
        return not _lock(one, held)


def unused_since(one: Cached, days: float) -> bool:
    """Whether nobody has read or written it for so many days."""
    return time.time() - one.used >= days * 86_400


def _about(path: Path) -> str:
    """What a bundle says it is; a damaged one says nothing."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        said = json.loads((path / "bundle.json").read_text(encoding="utf-8"))
        return f"{said['model']['name']}, {', '.join(sae['name'] for sae in said['saes']) or 'no SAE'}, {said['dtype']}"
    return ""


def _size_and_use(path: Path) -> tuple[int, float]:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    states = [file.stat() for file in files] or [path.stat()]
    largest = max(states, key=lambda state: state.st_size)  # small files are read to find out what it is
    return sum(file.stat().st_size for file in files), max(largest.st_atime, largest.st_mtime)
