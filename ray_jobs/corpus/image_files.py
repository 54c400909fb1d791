"""Find the files that a table of images names, and hash what is in them: they decide values as the table does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from featurestore.finding.files import SourceFile
from featurestore.tables.images import ImageFile, document_image, read_image
from featurestore.tables.parquet import parquet_records
from featurestore.tables.record import Wanted

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_AT_ONCE = 8  # files: as many as keep an object store busy
_LOT = 1_024  # files asked for together, so that few are in memory


def images_sha256(images: Sequence[ImageFile]) -> str:
    """Hash of the paths of images and of what is in their files, or that they cannot be read; "" of none."""
    if not images:
        return ""
    whole = hashlib.sha256()
    with ThreadPoolExecutor(_AT_ONCE, "sha256") as pool:
        for first in range(0, len(images), _LOT):
            lot = images[first : first + _LOT]
            for image, found in zip(lot, pool.map(_content, lot), strict=True):
                whole.update(f"{image.path.removeprefix(image.within)}\0{found}\n".encode())
    return whole.hexdigest()


def _content(image: ImageFile) -> str:
    data = read_image(image)
    return hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else data


def image_files(file: SourceFile, parquet: pq.ParquetFile, column: str) -> list[ImageFile]:
    """The files that a column of images names; rows with bytes of their own name none, and are not read for it."""
    metadata = parquet.metadata
    places = [i for i in range(metadata.num_columns) if metadata.schema.column(i).path == f"{column}.bytes"]
    if not places and _is_bytes(parquet, column):
        return []
    found, first = [], 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        told = metadata.row_group(group).column(places[0]).statistics if places else None
        if not rows or (told is not None and told.has_null_count and not told.null_count):
            first += rows
            continue
        for record in parquet_records(parquet, Wanted(None, None, (), column), first, rows):
            image, _ = document_image(record.image, column, file)
            found += [image] if isinstance(image, ImageFile) else []
        first += rows
    return found


def _is_bytes(parquet: pq.ParquetFile, column: str) -> bool:
    from featurestore.tables.arrow import family_of

    return family_of(parquet.schema_arrow.field(column).type) in ("bytes", "fixed bytes", "null")
