"""Find the files that a table of images names, and hash what is in them: they decide values as the table does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from featurestore.base.library_errors import reading
from featurestore.errors import CorpusError
from featurestore.finding.files import SourceFile
from featurestore.tables.images import ImageFile, document_image, read_image
from featurestore.tables.parquet import parquet_records
from featurestore.tables.record import Wanted

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_AT_ONCE = 8  # files: as many as keep an object store busy
LOT = 1_024  # files asked for together: enough to keep all threads busy, and few paths in memory


class ImagesDigest:
    """Hash of the paths of images and of what is in their files, or that they cannot be read.

    Images are `add`ed one by one and hashed in lots, so that a table of any length takes the memory of one lot. It is a
    context manager, which ends the threads that read.
    """

    def __init__(self) -> None:
        self._whole = hashlib.sha256()
        self._lot: list[ImageFile] = []
        self._count = 0
        self._pool = ThreadPoolExecutor(_AT_ONCE, "sha256")  # starts a thread when there is work for it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, image: ImageFile) -> None:
        """The next image.

        Raises:
            CorpusError: A file of the lot that this image fills cannot be read.
        """
        self._lot.append(image)
        self._count += 1
        if len(self._lot) == LOT:
            self._hash_lot()

    def hexdigest(self) -> str:
        """The hash of all of them; "" of none.

        Raises:
            CorpusError: A file of the last lot cannot be read.
        """
        self._hash_lot()
        return self._whole.hexdigest() if self._count else ""

    def _hash_lot(self) -> None:
        for image, found in zip(self._lot, self._pool.map(_content, self._lot), strict=True):
            self._whole.update(f"{image.path.removeprefix(image.within)}\0{found}\n".encode())
        self._lot.clear()


def images_sha256(images: Iterable[ImageFile]) -> str:
    """The `ImagesDigest` of images.

    Raises:
        CorpusError: A file cannot be read.
    """
    with ImagesDigest() as digest:
        for image in images:
            digest.add(image)
        return digest.hexdigest()


def _content(image: ImageFile) -> str:
    with reading(image.path, CorpusError, "check it and your access to it"):  # else the table would seem unreadable
        data = read_image(image)
    return hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else data


def image_files(file: SourceFile, parquet: pq.ParquetFile, column: str) -> Iterator[ImageFile]:
    """The files that a column of images names; rows with bytes of their own name none, and are not read for it."""
    metadata = parquet.metadata
    places = [i for i in range(metadata.num_columns) if metadata.schema.column(i).path == f"{column}.bytes"]
    if not places and _is_bytes(parquet, column):
        return
    first = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        told = metadata.row_group(group).column(places[0]).statistics if places else None
        if not rows or (told is not None and told.has_null_count and not told.null_count):
            first += rows
            continue
        for record in parquet_records(parquet, Wanted(None, None, (), column), first, rows):
            image, _ = document_image(record.image, column, file)
            if isinstance(image, ImageFile):
                yield image
        first += rows


def _is_bytes(parquet: pq.ParquetFile, column: str) -> bool:
    from featurestore.tables.arrow import family_of

    return family_of(parquet.schema_arrow.field(column).type) in ("bytes", "fixed bytes", "null")
