"""Hold the encoded images of a unit: so many bytes in memory, the rest in a file that nobody else sees.

A unit is sized by the mean of a sample, and a corpus may be made to have another one: what its images take together is
bounded here, whatever they are.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import IO

MEMORY_BYTES = 1 << 28
"""Of the images of one unit; units are sized so that they take less."""


@dataclass(frozen=True)
class SpooledImage:
    """Encoded bytes of an image in a file of this process."""

    file: IO[bytes]
    offset: int
    length: int

    def read(self) -> bytes:
        """The encoded bytes."""
        self.file.seek(self.offset)
        return self.file.read(self.length)


class Spool:
    """Keeps images, in the order in which they come.

    Args:
        memory_bytes: How many bytes of them stay in memory.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._left, self._end = memory_bytes, 0
        self._file: IO[bytes] | None = None

    def keep(self, data: bytes) -> bytes | SpooledImage:
        """The image, or where it is kept.

        Raises:
            OSError: There is no room for it on the disk of temporary files.
        """
        if len(data) <= self._left:
            self._left -= len(data)
            return data
        self._left = 0  # what follows stays together
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="sparsemill-images-")  # noqa: SIM115 (goes with the last image)
        self._file.seek(self._end)
        self._file.write(data)
        self._file.flush()
        kept = SpooledImage(self._file, self._end, len(data))
        self._end += len(data)
        return kept
