"""Have images decoded by a child process, so that none of them can harm, fill or stop the worker that reads them.

Pillow is C code that strangers' bytes go through. Here it runs apart (`decode_child`), with little memory and none of
the worker's environment; an image that it does not answer for in time, or that ends it, costs itself: the child is
replaced and the next image is decoded as if that one had not been. Copying pixels from one process to another takes
about a millisecond a megapixel, decoding them ten.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from featurestore.errors import JobSpecError
from featurestore.tables.images import ImageFile, read_image
from ray_jobs.images.spool import SpooledImage

SECONDS = 30.0
"""For one image. The largest that is read takes about three; what takes ten times that is made to."""

_START_SECONDS = 120.0  # for the first answer of a child, on a machine that is busy starting others
_PIECE_BYTES = 1 << 20


class ImageDecoder:
    """Decodes encoded images, one at a time.

    Args:
        seconds: How long one may take.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None

    def decode(self, data: bytes) -> np.ndarray | str:
        """The pixels of an image, uint8 [height, width, 3], or a sentence that says why there are none."""
        fresh = self._child is None or self._child.poll() is not None
        child = self._start() if fresh else self._child
        assert child is not None and child.stdin is not None
        deadline = time.monotonic() + self._seconds + (_START_SECONDS if fresh else 0.0)
        try:
            child.stdin.write(struct.pack("<Q", len(data)))
            child.stdin.write(data)
            child.stdin.flush()
            (decoded,) = self._read(1, deadline)
            if not decoded:
                (length,) = struct.unpack("<I", self._read(4, deadline))
                return f"the image cannot be decoded: {self._read(length, deadline).decode('utf-8', 'replace')}"
            height, width = struct.unpack("<II", self._read(8, deadline))
            pixels = self._read(height * width * 3, deadline)
        except TimeoutError:
            self.close()
            return f"the image cannot be decoded: it takes more than {self._seconds:g} seconds"
        except (OSError, EOFError):
            self.close()
            return "the image cannot be decoded: it ends the process that decodes it"
        return np.frombuffer(pixels, dtype=np.uint8).reshape(height, width, 3)

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was still to be written to a child that has ended
                    pipe.close()
        child.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        self.close()
        command = [sys.executable, "-I", str(Path(__file__).with_name("decode_child.py")), _site()]
        environment = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, cwd="/"
        )
        return self._child

    def _read(self, n_bytes: int, deadline: float) -> bytearray:
        """So many bytes of the answer.

        Raises:
            TimeoutError: They are not there in time.
            EOFError: They never will be.
        """
        assert self._child is not None and self._child.stdout is not None
        file, found = self._child.stdout.fileno(), bytearray()
        while len(found) < n_bytes:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([file], [], [], left)[0]:
                raise TimeoutError
            piece = os.read(file, min(_PIECE_BYTES, n_bytes - len(found)))
            if not piece:
                raise EOFError
            found += piece
        return found


class DecodedImages:
    """The images of documents, decoded when they are asked for, so that few are in memory at a time.

    Args:
        images: What each document has: encoded bytes, or where they are; None for a document without.
        decoder: Decodes them.
    """

    def __init__(self, images: Sequence[bytes | ImageFile | SpooledImage | None], decoder: ImageDecoder) -> None:
        self._images, self._decoder = images, decoder

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> np.ndarray | str:
        """The pixels of one, uint8 [height, width, 3], or a sentence that says why there are none.

        Raises:
            OSError: Storage failed.
            CorpusError: A file that the corpus lists is gone.
        """
        image = self._images[number]
        if image is None:
            return "the document has no image"
        data = read_image(image) if isinstance(image, ImageFile) else image
        data = data.read() if isinstance(data, SpooledImage) else data
        return data if isinstance(data, str) else self._decoder.decode(data)


def decoder_version() -> str:
    """Version of what decodes, with those of the libraries in it that may round in a way of their own.

    Raises:
        JobSpecError: Pillow is not installed.
    """
    found = installed_version()
    if found is None:
        raise JobSpecError(
            "corpus.image: images are decoded by Pillow, which is not installed; pip install 'sparsemill[images]'"
        )
    return found


def installed_version() -> str | None:
    """The same; None where Pillow is not installed."""
    try:
        import PIL
        from PIL import features
    except ImportError:
        return None
    lossy = ("libjpeg_turbo", "webp", "avif")
    inside = [f"{name} {version}" for name in lossy if (version := features.version(name)) is not None]
    return f"{PIL.__version__} ({', '.join(inside)})"


def _site() -> str:
    """The directory that Pillow is imported from, which a process isolated from the environment may not know."""
    spec = importlib.util.find_spec("PIL")
    return str(Path(spec.origin).parents[1]) if spec is not None and spec.origin else ""
