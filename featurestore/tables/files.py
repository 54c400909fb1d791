"""Finding the files of a corpus: paths, globs and directories, local or remote, become a fixed list of named files.

The order is that of the paths in the job, sorted by name within each, so it does not depend on the file system.
Names are relative to the longest directory that all files share: a corpus that is moved keeps them, and with them
the ids derived from them. What is inside the files is left to the formats' own modules.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from featurestore.errors import CorpusError
from featurestore.nearest import nearest

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

FORMAT_OF_SUFFIX = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
}
COMPRESSION_OF_SUFFIX = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}

_GLOB_CHARACTERS = re.compile(r"[*?\[]")
_QUERY = re.compile(r"(?P<uri>\w[\w+.-]*://[^?]*)\?(?P<query>[\w.-]+=.*)")


@dataclass(frozen=True)
class SourceFile:
    """A file of the corpus and all that is needed to open it elsewhere.

    Attributes:
        root: What `featurestore.files.filesystem` is asked for to reach the file: a directory, URL or the file itself.
        path: The file's path within that file system.
        name: Its name relative to the directory that all files of the corpus share, with "/" as separator.
        format: "parquet", "jsonl" or "csv".
        compression: "gzip", "zstd" or None.
        size: Bytes on disk; None where the file system does not say.
        mtime_ns: Time of the last change in nanoseconds since 1970; None where the file system does not say.
    """

    root: str
    path: str
    name: str
    format: str
    compression: str | None
    size: int | None
    mtime_ns: int | None

    @property
    def uri(self) -> str:
        """The path, or the URL without query and credentials, for messages."""
        scheme, found, _ = self.root.partition("://")
        is_plain = not found or scheme == "file" or "://" in self.path
        return self.path if is_plain else f"{scheme}://{self.path.lstrip('/')}"

    @property
    def is_tsv(self) -> bool:
        """Whether tabs, not commas, separate the fields."""
        return ".tsv" in PurePosixPath(self.path.lower()).suffixes[-2:]


def find_files(paths: Sequence[str], file_format: str | None) -> list[SourceFile]:
    """All files that the paths of a job mean.

    Args:
        paths: Files, globs (`*`, `?`, `[...]` and `**`) and directories; those are taken whole, except what is hidden
            (names that begin with "." or "_"), has no known suffix, or belongs to a feature store.
        file_format: The format of all files; taken from each name where None.

    Raises:
        CorpusError: A path matches nothing or cannot be listed, or a file's format cannot be told from its name.
    """
    from featurestore.files import shown

    files: dict[str, SourceFile] = {}  # a file that two paths match is read once
    for path in paths:
        try:
            found = list(_expand(path, file_format))
        except (OSError, ValueError, ImportError) as exc:
            reason = (str(exc).splitlines() or [type(exc).__name__])[0]
            raise CorpusError(
                f"corpus.path '{shown(path)}' cannot be listed ({reason}); check path and access"
            ) from None
        if not found:
            raise CorpusError(f"corpus.path '{shown(path)}' matches no file; check the path or the pattern")
        for file in found:
            files.setdefault(file.uri, file)
    shared = _shared_depth(list(files))
    return [replace(file, name="/".join(uri.split("/")[shared:])) for uri, file in files.items()]


def _expand(path: str, file_format: str | None) -> Iterator[SourceFile]:
    is_glob = _GLOB_CHARACTERS.search(_QUERY.sub(r"\g<uri>", path)) and not _is_local_file(path)
    return _glob(path, file_format) if is_glob else _file_or_directory(path, file_format)


def _file_or_directory(path: str, file_format: str | None) -> Iterator[SourceFile]:
    from pyarrow.fs import FileType

    root = _absolute(path)
    fs, inner = _filesystem(root)
    info = fs.get_file_info(inner)
    if info.type == FileType.File:
        yield _source(root, info, file_format)
    elif info.type == FileType.Directory:
        found = [info for name, info in _listing(fs, inner, recursive=True) if not _is_hidden(name)]
        known = [info for info in found if file_format in {None, _format_of(info.path)[0]} and _format_of(info.path)[0]]
        if not known:
            wanted = file_format or "Parquet, JSONL or CSV"
            raise CorpusError(
                f"corpus.path '{info.path}' is a directory without {wanted} files; name the files by a glob"
            )
        yield from (_source(root, info, file_format) for info in known)
    else:
        raise CorpusError(f"corpus.path '{inner}' does not exist{_nearest_file(root)}; check the path")


def _glob(path: str, file_format: str | None) -> Iterator[SourceFile]:
    query = _QUERY.fullmatch(path)
    parts = _absolute(query["uri"] if query else path).split("/")
    first = next(i for i, part in enumerate(parts) if _GLOB_CHARACTERS.search(part))
    base = "/".join(parts[:first]) or "/"
    pattern = parts[first:]
    root = f"{base}?{query['query']}" if query else base
    fs, inner = _filesystem(root)
    for name, info in _listing(fs, inner, recursive=len(pattern) > 1 or "**" in pattern):
        if _matches(name.split("/"), pattern):
            yield _source(root, info, file_format)


def _listing(fs: FileSystem, directory: str, recursive: bool) -> list[tuple[str, FileInfo]]:
    """Files below a directory with their relative names, in the order of those; none of a feature store's."""
    from pyarrow.fs import FileSelector, FileType

    prefix = directory.strip("/")
    infos = fs.get_file_info(FileSelector(directory, recursive=recursive, allow_not_found=True))
    files = [
        (info.path.strip("/").removeprefix(prefix).lstrip("/"), info) for info in infos if info.type == FileType.File
    ]
    # The store of a job may lie below its own corpus: a rerun must not read its parts as documents.
    stores = tuple(name.removesuffix("store.json") for name, _ in files if name.endswith("/store.json"))
    return sorted(
        ((name, info) for name, info in files if not (stores and name.startswith(stores))), key=lambda found: found[0]
    )


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether a relative name matches a glob, part by part; `**` stands for any number of directories."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        rest = pattern[1:] or ["*"]
        return _matches(parts, rest) or (
            len(parts) > 1 and not parts[0].startswith(".") and _matches(parts[1:], pattern)
        )
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _source(root: str, info: FileInfo, file_format: str | None) -> SourceFile:
    told, compression = _format_of(info.path)
    chosen = file_format or told
    if chosen is None:
        raise CorpusError(f"{info.path}: its name does not tell the format; give corpus.format or a narrower path")
    if chosen == "parquet" and compression:
        raise CorpusError(f"{info.path}: a Parquet file cannot be read through {compression}; decompress it first")
    try:
        info.path.encode()
    except UnicodeEncodeError:
        raise CorpusError(f"{info.path!a}: its name is not UTF-8; rename it") from None
    return SourceFile(root, info.path, info.path, chosen, compression, info.size, info.mtime_ns)


def _format_of(path: str) -> tuple[str | None, str | None]:
    """(format, compression) as the name tells them."""
    name = PurePosixPath(path.lower())
    compression = COMPRESSION_OF_SUFFIX.get(name.suffix)
    return FORMAT_OF_SUFFIX.get(name.with_suffix("").suffix if compression else name.suffix), compression


def _shared_depth(uris: list[str]) -> int:
    """How many leading path parts are directories that all files share."""
    directories = [uri.split("/")[:-1] for uri in uris]
    depth = 0
    while all(len(parts) > depth and parts[depth] == directories[0][depth] for parts in directories):
        depth += 1
    return depth


def _filesystem(root: str) -> tuple[FileSystem, str]:
    from featurestore.files import filesystem

    return filesystem(root)


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)  # noqa: PTH100  (links stay as the user named them)


def _is_local_file(path: str) -> bool:
    return "://" not in path and Path(path).is_file()


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _nearest_file(root: str) -> str:
    if "://" in root or not Path(root).parent.is_dir():
        return ""
    near = nearest(Path(root).name, [entry.name for entry in Path(root).parent.iterdir()])
    return f", but '{near[0]}' does" if near else ""
