"""Find the files of a corpus or table: paths, globs and folders, local or remote, become a fixed list of named files.

The order is that of the paths in the job, sorted by name within each, so it does not depend on the file system.
Names are relative to the longest directory that all files share: a corpus that is moved keeps them, and with them
the ids derived from them. Two accounts or endpoints may have files of one path: all but the first's get another name.
What is inside the files is left to the formats' own modules.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from featurestore.base.did_you_mean import nearest
from featurestore.errors import CorpusError
from featurestore.finding.folders import Entry, Listing, entry_of, listing_of, walk
from featurestore.finding.patterns import alternatives, is_pattern, unescaped

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

    from featurestore.finding.dialect import Dialect

FORMAT_OF_SUFFIX = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
}
IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif")
)
IMAGE = "image"  # the format of a file that is one image, and one row
TABLE_OR_IMAGE = "table or image"  # as a wanted format: whichever the names tell
COMPRESSION_OF_SUFFIX = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}

_PARTITION = re.compile(r"([^=]+)=(.*)")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
# What Spark, Hive and Delta Lake write beside the data; a pattern means it only by name.
_NO_DATA = re.compile(r"_SUCCESS|_(?:committed|started)_\d+|_(?:common_)?metadata|_delta_log|_spark_metadata")
_QUERY = re.compile(r"(?P<uri>\w[\w+.-]*://[^?]*)\?(?P<query>[\w.-]+=.*)")


@dataclass(frozen=True)
class SourceFile:
    """A file of the corpus and all that is needed to open it elsewhere.

    Attributes:
        root: What `featurestore.storage.files.filesystem` is asked for to reach the file: a directory, URL or the file
            itself.
        path: The file's path within that file system.
        name: Its name relative to the directory that all files of the corpus share, with "/" as separator.
        format: "parquet", "jsonl", "csv", "json" for a file that turned out to be one array (`arrays`), or IMAGE.
        compression: "gzip", "zstd" or None.
        size: Bytes on disk; None where the file system does not say.
        mtime_ns: Time of the last change in nanoseconds since 1970; None where the file system does not say.
        dialect: How a CSV file is written; None until it was looked at.
    """

    root: str
    path: str
    name: str
    format: str
    compression: str | None
    size: int | None
    mtime_ns: int | None
    dialect: Dialect | None = field(default=None, kw_only=True)

    @property
    def uri(self) -> str:
        """The path, or the URL without query and credentials, for messages."""
        scheme, found, _ = self.root.partition("://")
        is_plain = not found or scheme == "file" or "://" in self.path
        return self.path if is_plain else f"{scheme}://{self.path.lstrip('/')}"

    @property
    def partitions(self) -> dict[str, str | None]:
        """Column -> value, as the directories on the way have them (`lang=de/`); None for a partition of no value.

        The directory that an image lies in is its `label`, where none of them says `label=`.
        """
        found: dict[str, str | None] = {}
        parts = self.path.split("/")[:-1]
        for part in parts:
            if match := _PARTITION.fullmatch(part):
                value = unquote(match[2])
                found[unquote(match[1])] = None if value in {_NO_VALUE, ""} else value
        if self.format == IMAGE and parts and not _PARTITION.fullmatch(parts[-1]):
            found.setdefault("label", parts[-1])
        return found

    @property
    def is_tsv(self) -> bool:
        """Whether its name says that tabs, not commas, separate the fields."""
        return ".tsv" in PurePosixPath(self.path.lower()).suffixes[-2:]


@dataclass(frozen=True)
class Found:
    """The files that some paths mean.

    Attributes:
        files: In reading order, each once.
        again: (name, the name that counts) of each file and folder that was reached a second time, by a link or by
            another path.
    """

    files: tuple[SourceFile, ...]
    again: tuple[tuple[str, str], ...] = ()


def find_files(paths: Sequence[str], file_format: str | None) -> list[SourceFile]:
    """All files that the paths of a job mean; see `look_up`."""
    return list(look_up(paths, file_format).files)


def look_up(paths: Sequence[str], file_format: str | None) -> Found:
    """All files that the paths of a job mean, and what was reached more than once.

    Args:
        paths: Files, globs (`*`, `?`, `[...]`, `**`, `{a,b}`) and directories; those are taken whole, except what is
            hidden (names that begin with "." or "_"), has no known suffix, or belongs to a feature store. A file or
            directory with such characters in its name comes before what they would mean as a glob.
        file_format: The format of all files; taken from each name where None, and images are only meant by IMAGE or
            TABLE_OR_IMAGE.

    Raises:
        CorpusError: A path matches nothing or cannot be listed, a link leads nowhere, or a file's format cannot be
            told from its name.
    """
    files: dict[object, SourceFile] = {}
    places: dict[str, tuple[str, ...]] = {}  # of each root
    again: list[tuple[str, str]] = []
    for path in paths:
        try:
            found = _expand(path, file_format, again)
        except (OSError, ValueError, ImportError) as exc:
            reason = (str(exc).splitlines() or [type(exc).__name__])[0]
            raise CorpusError(
                f"corpus.path '{_shown(path)}' cannot be listed ({reason}); check path and access"
            ) from None
        if not found:
            raise CorpusError(f"corpus.path '{_shown(path)}' matches no file; check the path or the pattern")
        for real, file in sorted(found, key=lambda pair: pair[1].path):
            if file.root not in places:
                places[file.root] = _place(file.root, file.path)
            first = files.setdefault((places[file.root], real), file)
            if first is not file:
                again.append((file.uri, first.uri))
    shared = _shared_directory([file.uri for file in files.values()])
    same: dict[str, list[tuple[str, ...]]] = {}  # URL without account and query -> the places that have such a file

    def named(file: SourceFile) -> SourceFile:
        have, place = same.setdefault(file.uri, []), places[file.root]
        if place not in have:
            have.append(place)
        before = f"@{have.index(place) + 1}/" if place != have[0] else ""
        return replace(file, name=before + file.uri.removeprefix(shared))

    return Found(
        tuple(map(named, files.values())),
        tuple(dict.fromkeys((name.removeprefix(shared), first.removeprefix(shared)) for name, first in again)),
    )


def _expand(path: str, file_format: str | None, again: list[tuple[str, str]]) -> list[tuple[object, SourceFile]]:
    """(what it really is, file) of all files that a path means."""
    found = _one(path, file_format, again)
    if found is not None:
        return found
    choices = alternatives(path)
    return [] if choices == [path] else [file for choice in choices for file in _one(choice, file_format, again) or []]


def _one(path: str, file_format: str | None, again: list[tuple[str, str]]) -> list[tuple[object, SourceFile]] | None:
    """The same for a path whose braces are part of names; None where it matches nothing."""
    query = _QUERY.fullmatch(path)
    parts = _absolute(query["uri"] if query else path).split("/")
    n_names = first = next((i for i, part in enumerate(parts) if is_pattern(part)), len(parts))
    base = "/".join(map(unescaped, parts[:n_names])) or "/"
    root = f"{base}?{query['query']}" if query else base
    fs, inner = _filesystem(root)
    # A name that is there is that name, whatever it could mean as a pattern.
    while (top := entry_of(fs, inner)) is not None and n_names < len(parts):
        literal = f"{inner.rstrip('/')}/{parts[n_names]}"
        if entry_of(fs, literal) is None:
            break
        inner, n_names = literal, n_names + 1
    pattern = [part for part in parts[n_names:] if part]
    if top is None and not pattern:
        raise CorpusError(f"corpus.path '{inner}' does not exist{_nearest_file(root)}; check the path")
    if top is None:
        return None
    if not pattern:
        return _whole(root, fs, top, file_format, again)
    found = []
    listing = listing_of(fs, top, recursive=len(pattern) > 1 or pattern == ["**"])
    for entry in walk(top, listing, pattern, (".",), again):
        below = entry.path.removeprefix(top.path).split("/")
        if any(_NO_DATA.fullmatch(part) and part not in pattern for part in below):
            continue
        if not entry.is_folder:
            found.append((entry.real, _source(root, entry, file_format)))
        elif not is_pattern(pattern[-1]) or _is_data_set(entry, listing):
            found += _whole(root, fs, entry, file_format, again)
    is_name = any("{" in part for part in parts[first:n_names])
    return found if found or is_name else None


def _is_data_set(folder: Entry, listing: Listing) -> bool:
    """Whether a folder that a pattern matches is one table: `2024.parquet/`, `lang=de/`, or what Spark has finished."""
    name = folder.path.rpartition("/")[2]
    return bool(_format_of(name, None)[0]) or bool(_PARTITION.fullmatch(name)) or "_SUCCESS" in listing(folder)


def _whole(
    root: str, fs: FileSystem, top: Entry, file_format: str | None, again: list[tuple[str, str]]
) -> list[tuple[object, SourceFile]]:
    """A file, or all files of a directory."""
    if not top.is_folder:
        return [(top.real, _source(root, top, file_format))]
    hidden = (".", "_")
    below = walk(top, listing_of(fs, top, recursive=True), ("**",), hidden, again)
    of_names = {None, TABLE_OR_IMAGE}
    told = [(entry, _format_of(entry.path, file_format)[0]) for entry in below]
    known = [entry for entry, one in told if one is not None and (file_format in of_names or one == file_format)]
    if not known:
        if file_format is None and any(_format_of(entry.path, IMAGE)[0] == IMAGE for entry, _ in told):
            raise CorpusError(
                f"corpus.path '{top.path}' is a directory of images without tables; say corpus.format: images"
            )
        wanted = {None: "Parquet, JSONL or CSV", TABLE_OR_IMAGE: "image, Parquet, JSONL or CSV"}.get(file_format)
        raise CorpusError(
            f"corpus.path '{top.path}' is a directory without {wanted or file_format} files; name the files by a glob"
        )
    if file_format == TABLE_OR_IMAGE and len({one == IMAGE for _, one in told if one is not None}) == 2:
        raise CorpusError(
            f"corpus.path '{top.path}' holds tables and images; say corpus.format: images for the images, or name the "
            "table"
        )
    return [(entry.real, _source(root, entry, file_format)) for entry in known]


def _source(root: str, entry: Entry, file_format: str | None) -> SourceFile:
    path = entry.path
    told, compression = _format_of(path, file_format)
    chosen = told if file_format in {None, TABLE_OR_IMAGE} else file_format
    if chosen is None:
        raise CorpusError(f"{path}: its name does not tell the format; give corpus.format or a narrower path")
    if chosen == "parquet" and compression:
        raise CorpusError(f"{path}: a Parquet file cannot be read through {compression}; decompress it first")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise CorpusError(f"{path!a}: its name is not UTF-8; rename it") from None
    return SourceFile(root, path, path, chosen, compression, entry.size, entry.mtime_ns)


def _format_of(path: str, wanted: str | None) -> tuple[str | None, str | None]:
    """(format, compression) as the name tells them, where images may be wanted."""
    stem, suffix = os.path.splitext(path.lower())  # noqa: PTH122  (a Path for each of a million files is slow)
    if wanted in {IMAGE, TABLE_OR_IMAGE} and suffix in IMAGE_SUFFIXES:
        return IMAGE, None
    compression = COMPRESSION_OF_SUFFIX.get(suffix)
    return FORMAT_OF_SUFFIX.get(os.path.splitext(stem)[1] if compression else suffix), compression  # noqa: PTH122


def _place(root: str, path: str) -> tuple[str, ...]:
    """What of a URL says which storage a path is in, beside that path; nothing of what is on this machine's disks."""
    from featurestore.storage.objectstore import is_object_store

    scheme, is_url, rest = root.partition("://")
    if not is_url or scheme == "file":
        return ()
    before, _, query = rest.partition("?")
    if is_object_store(root):  # paths begin with the bucket, and what else a query says is how to get there
        return scheme.replace("gcs", "gs"), dict(parse_qsl(query)).get("endpoint_override", "")
    if chain := before.partition("::")[2]:  # a file within another one, of which path and authority tell nothing
        return scheme, chain, query
    authority = before.partition("/")[0]
    within = "://" in path or f"{path.strip('/')}/".startswith(f"{authority}/")
    return scheme, "" if within else authority, query


def _shared_directory(uris: list[str]) -> str:
    """The longest directory that all files share, with its slash."""
    directories = [uri.split("/")[:-1] for uri in uris]
    depth = 0
    while all(len(parts) > depth and parts[depth] == directories[0][depth] for parts in directories):
        depth += 1
    return "".join(f"{part}/" for part in directories[0][:depth])


def _filesystem(root: str) -> tuple[FileSystem, str]:
    from featurestore.storage.files import reached

    return reached(root)


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)  # noqa: PTH100  (links stay as the user named them)


def _shown(path: str) -> str:
    from featurestore.storage.files import shown

    return shown(unescaped(path))


def _nearest_file(root: str) -> str:
    if "://" in root or not Path(root).parent.is_dir():
        return ""
    near = nearest(Path(root).name, [entry.name for entry in Path(root).parent.iterdir()])
    return f", but '{near[0]}' does" if near else ""
