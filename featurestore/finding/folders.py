"""List a folder, on a disk or in a bucket: each file that a pattern means, under the first name that leads to it.

Links are followed on local disks, and a folder is entered once for what it really is, so a walk ends whatever links
there are; where a link led to a folder that was walked already is noted. A link to nothing, to itself, or out of the
folder to one that holds it is refused by name where it could matter. What the files are is left to `files`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.errors import CorpusError
from featurestore.finding.patterns import matches

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


@dataclass(frozen=True)
class Entry:
    """A file or folder.

    Attributes:
        path: Within its file system.
        real: Equal for two entries where they are the same file or folder; of a local folder, its path without links.
        is_folder: Whether it is one, or a link that leads nowhere and may have been.
        size: Bytes of a file; None where the file system does not say.
        mtime_ns: When a file last changed, in nanoseconds since 1970; None where the file system does not say.
        problem: Why it cannot be followed.
        is_link: Whether it is a link.
    """

    path: str
    real: object
    is_folder: bool
    size: int | None = None
    mtime_ns: int | None = None
    problem: str | None = None
    is_link: bool = False


Listing = Callable[[Entry], Mapping[str, Entry]]
"""What is in a folder, by name."""


def entry_of(fs: FileSystem, path: str) -> Entry | None:
    """The file or folder at a path, or None where there is none.

    Raises:
        CorpusError: A local path leads over a link to nothing or to itself.
    """
    from pyarrow.fs import FileType

    from featurestore.storage.files import is_local

    if is_local(fs):
        found = _local(path, os.path.realpath(path), is_link=False)
        if found is not None and found.problem:
            raise CorpusError(found.problem)
        return found
    info = fs.get_file_info(path)
    if info.type == FileType.NotFound:
        return None
    return Entry(path, path, info.type == FileType.Directory, info.size, info.mtime_ns)


def listing_of(fs: FileSystem, top: Entry, recursive: bool) -> Listing:
    """Lists a folder and, if `recursive`, those below it."""
    from featurestore.storage.files import is_local

    return _local_folder if is_local(fs) else _remote_folders(fs, top.path, recursive)


def walk(
    top: Entry, listing: Listing, parts: Sequence[str], hidden: tuple[str, ...], again: list[tuple[str, str]]
) -> Iterator[Entry]:
    """What a pattern means below a folder, in the order of the names; those over several links come last.

    Args:
        top: The folder.
        listing: Lists it and those below.
        parts: The pattern. `**` stands for any number of folders, and as the last part for every file in and below
            them. A part that is a name in a folder means this name there and nothing else.
        hidden: How the names begin that `**` does not stand for.
        again: Takes (path, path of its first name) of each folder that was reached a second time.

    Yields:
        Each file or folder that the last part means.

    Raises:
        CorpusError: A link where the pattern leads is to nothing, to itself, or to a folder that holds the top one.
        OSError: A folder cannot be listed.
    """
    entered: dict[object, tuple[str, set[int]]] = {}  # folder -> its first path, and which parts were looked for in it

    def enter(folder: Entry, wanted: set[int]) -> Iterator[tuple[Entry, set[int]]]:
        """What is in a folder, with the parts to look for below it; nothing of what was looked for before."""
        for i in sorted(wanted):
            while parts[i] == "**" and i + 1 < len(parts):  # stands for no folder at all
                wanted.add(i := i + 1)
        first, done = entered.setdefault(folder.real, (folder.path, set()))
        if first != folder.path:
            again.append((folder.path, first))
        wanted = wanted - done
        done |= wanted
        found = listing(folder) if wanted else {}
        # The store of a job may lie below its own corpus: a rerun must not read its parts as documents.
        if folder is not top and "store.json" in found:
            return
        for name in sorted(found, key=lambda name: f"{name}/" if found[name].is_folder else name):
            yield found[name], {i for part in wanted for i in _next(parts, part, name, found, hidden)}

    walking = [(enter(top, {0}), False)]
    later: deque[tuple[Entry, set[int]]] = deque()
    while walking or later:
        if not walking:
            walking.append((enter(*later.popleft()), True))
        inside, over_link = walking[-1]
        for entry, wanted in inside:
            if entry.problem and wanted:
                raise CorpusError(entry.problem)
            if len(parts) in wanted:
                yield entry
            wanted.discard(len(parts))
            if entry.is_folder and wanted:
                if "**" in map(parts.__getitem__, wanted):
                    _check_inside(top, entry)
                if entry.is_link and over_link:
                    later.append((entry, wanted))
                    continue
                walking.append((enter(entry, wanted), over_link or entry.is_link))
                break
        else:
            walking.pop()


def _next(
    parts: Sequence[str], i: int, name: str, found: Mapping[str, Entry], hidden: tuple[str, ...]
) -> Iterator[int]:
    """The parts to look for next where part `i` is looked for and `name` was found."""
    if parts[i] != "**":
        if name == parts[i] or (parts[i] not in found and matches(name, parts[i])):
            yield i + 1
    elif not name.startswith(hidden):
        if found[name].is_folder:
            yield i
        elif i + 1 == len(parts):
            yield i + 1


def _check_inside(top: Entry, folder: Entry) -> None:
    """Refuses to go on from a folder to one that holds it, which has everything beside it too: to the whole disk."""
    if str(top.real).startswith(f"{str(folder.real).rstrip('/')}/"):
        raise CorpusError(
            f"{folder.path} is a link to {folder.real}, which holds {top.path} itself; remove the link, or name the "
            "files by a pattern that leaves it out"
        )


def _local_folder(folder: Entry) -> dict[str, Entry]:
    with os.scandir(folder.path) as entries:
        found = {
            entry.name: _local(
                os.path.join(folder.path, entry.name),  # noqa: PTH118  (a Path for each of a million files is slow)
                os.path.join(str(folder.real), entry.name),  # noqa: PTH118
                entry.is_symlink(),
            )
            for entry in entries
        }
    return {name: entry for name, entry in found.items() if entry is not None}


def _local(path: str, real: str, is_link: bool) -> Entry | None:
    """A local file or folder; None for what is gone and for pipes, sockets and devices."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        problem = _broken_link(path, error.errno)
        return Entry(path, path, is_folder=True, problem=problem) if problem else None
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, os.path.realpath(path) if is_link else real, is_folder=True, is_link=is_link)
    if not stat.S_ISREG(status.st_mode):
        return None
    # Size and time beside the number: some network file systems give two files the same one.
    same = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns) if status.st_ino else path
    return Entry(path, same, is_folder=False, size=status.st_size, mtime_ns=status.st_mtime_ns)


def _broken_link(path: str, number: int) -> str | None:
    """The sentence about the link on the way of a path that leads nowhere."""
    for end in (i for i, c in enumerate(f"{path}/") if c == "/" and i):
        link = path[:end]
        if os.path.islink(link) and not os.path.exists(link):  # noqa: PTH110, PTH114
            why = "leads back to itself" if number == errno.ELOOP else "is not there"
            return (
                f"{link} is a link to {os.readlink(link)}, which {why}; mend or remove the link, or name the files by "  # noqa: PTH115
                "a pattern that leaves it out"
            )
    return None


def _remote_folders(fs: FileSystem, top: str, recursive: bool) -> Listing:
    """Lists from what storage says of all folders at once: a request for a thousand files, not one for each folder."""
    from pyarrow.fs import FileSelector, FileType

    folders: dict[str, dict[str, Entry]] = {}
    prefix = top.strip("/")
    for info in fs.get_file_info(FileSelector(top, recursive=recursive, allow_not_found=True)):
        if info.type != FileType.File:
            continue
        folder, names = prefix, info.path.strip("/").removeprefix(prefix).strip("/").split("/")
        for name in names[:-1]:
            path = f"{folder}/{name}"
            folders.setdefault(folder, {}).setdefault(name, Entry(path, path, is_folder=True))
            folder = path
        file = Entry(info.path, info.path, is_folder=False, size=info.size, mtime_ns=info.mtime_ns)
        folders.setdefault(folder, {})[names[-1]] = file
    return lambda folder: folders.get(folder.path.strip("/"), {})
