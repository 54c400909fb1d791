"""Read a column of images: encoded bytes, or paths of files beside the table. Nothing is decoded here.

`datasets` keeps an image as a struct of `bytes` and `path`; where the bytes are there they are the image, else the path
is. Other writers keep plain bytes, and CSV and JSON lines have paths. A path is taken from the directory that holds its
table, and leads nowhere else: neither `..` nor a link leaves it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import CorpusError
from featurestore.finding.files import IMAGE, SourceFile
from featurestore.storage.files import filesystem, is_local
from featurestore.tables.arrow import decoded, family_of, plain_type
from featurestore.tables.record import MISSING, Unusable
from featurestore.tables.values import kind_of_json

if TYPE_CHECKING:
    import pyarrow as pa

MAX_IMAGE_BYTES = 64 << 20
"""Of an encoded image, as of a row of text: what is larger is a damaged file or an attack, and bounds the memory of a
reader. A photograph of 60 megapixels is a JPEG of 20 to 40 MB."""

_BYTES = ("bytes", "fixed bytes")


@dataclass(frozen=True)
class ImageFile:
    """An image in a file of its own.

    Attributes:
        root: What `filesystem` is asked for to reach it.
        path: Its path within that file system.
        within: The directory that it must not lie outside of, within that file system.
        listed: Whether the corpus lists the file itself, so that it must be there.
    """

    root: str
    path: str
    within: str
    listed: bool = False


def holds_images(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold images: bytes, paths, or structs of both."""
    family = family_of(kind)
    if family in (*_BYTES, "text", "null"):
        return True
    return any(family_of(held) in _FIELDS.get(name, ()) for name, held in _struct_fields(kind))


_FIELDS = {"bytes": (*_BYTES, "null"), "path": ("text", "null")}


def _struct_fields(kind: pa.DataType) -> list[tuple[str, pa.DataType]]:
    import pyarrow as pa

    plain = plain_type(kind)
    return [(field.name, field.type) for field in plain] if pa.types.is_struct(plain) else []


def images_of(column: pa.Array) -> list[Any]:
    """The images of a column that `holds_images`: bytes, paths as text, None, or `Unusable`."""
    import pyarrow as pa

    column = decoded(column)
    if not pa.types.is_struct(column.type):
        return column.to_pylist()
    there = column.is_valid().to_pylist()
    rows: list[dict[str, Any]] = [{} for _ in there]
    for (name, held), field in zip(_struct_fields(column.type), column.flatten(), strict=True):
        if family_of(held) in _FIELDS.get(name, ()):
            for row, value in zip(rows, decoded(field).to_pylist(), strict=True):
                row[name] = value
    return [_of_struct(row) if valid else None for row, valid in zip(rows, there, strict=True)]


def _of_struct(row: Mapping[str, Any]) -> Any:
    return row.get("bytes") if row.get("bytes") is not None else row.get("path")


def document_image(raw: Any, column: str, file: SourceFile) -> tuple[bytes | ImageFile | None, str | None]:
    """(encoded bytes or where they are, error) of a row; exactly one of them is None.

    Args:
        raw: What the row has.
        column: The column that it is in.
        file: The file that the row is in.
    """
    if file.format == IMAGE:
        return ImageFile(file.root, file.path, posixpath.dirname(file.path), listed=True), None
    if isinstance(raw, Mapping):  # JSON lines that `datasets` has written
        raw = _of_struct(raw)
    if isinstance(raw, bytes):
        if not raw:
            return None, f"the image in '{column}' is empty"
        if len(raw) > MAX_IMAGE_BYTES:
            return None, f"the image in '{column}' {too_large(len(raw))}"
        return raw, None
    if isinstance(raw, str):
        return _beside(raw, column, file)
    if raw is MISSING:
        return None, f"the row has no image '{column}'"
    if isinstance(raw, Unusable):
        return None, f"the image in '{column}' {raw.reason}"
    return None, f"the image in '{column}' is {kind_of_json(raw)}"


def too_large(n_bytes: int) -> str:
    """What is said of an image of so many encoded bytes."""
    return f"has {n_bytes:,} bytes; {MAX_IMAGE_BYTES:,} are the limit"


def _beside(path: str, column: str, file: SourceFile) -> tuple[ImageFile | None, str | None]:
    """The file that a path in a table means, which lies in or below the table's directory."""
    within = posixpath.dirname(file.path)
    if not path.strip() or "\0" in path or any("\ud800" <= char <= "\udfff" for char in path):
        return None, f"the image in '{column}' is no path of a file"
    inner = posixpath.normpath(posixpath.join(within, path))
    if "://" in path or posixpath.isabs(path) or not _is_below(inner, within):
        return None, (
            f"the image in '{column}' is not in the directory of its table; give a path from there on, to a file in it"
        )
    return ImageFile(file.root, inner, within), None


def _is_below(path: str, directory: str) -> bool:
    return path.startswith(f"{directory.rstrip('/')}/")


def read_image(image: ImageFile) -> bytes | str:
    """The encoded bytes of an image's file, or why there are none, in one sentence.

    Raises:
        OSError: Storage failed.
        CorpusError: A file that the corpus lists is gone.
    """
    from pyarrow.fs import FileType

    fs, _ = filesystem(image.root)
    name = posixpath.basename(image.path)
    if is_local(fs):
        real = str(Path(image.path).resolve())
        if not image.listed and not _is_below(real, str(Path(image.within).resolve())):
            return "the image's file is a link that leaves the directory of its table"
    info = fs.get_file_info(image.path)
    if info.type == FileType.NotFound and image.listed:
        raise CorpusError(f"{image.path} is gone; put it back or change corpus.path")
    if info.type == FileType.NotFound:
        return f"the image's file {name!r} is not there"
    if info.type != FileType.File or (is_local(fs) and not Path(image.path).is_file()):
        return f"the image's file {name!r} is no regular file"
    if (info.size or 0) > MAX_IMAGE_BYTES:
        return f"the image {too_large(info.size)}"
    with fs.open_input_stream(image.path, compression=None) as stream:
        data = bytes(stream.read(MAX_IMAGE_BYTES + 1))
    if not data:
        return "the image's file is empty"
    return f"the image {too_large(len(data))}" if len(data) > MAX_IMAGE_BYTES else data
