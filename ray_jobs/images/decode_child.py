"""Decode images with Pillow: the program that `decoder` runs in a process of its own.

It imports nothing of ours, so that it can run isolated from the environment (`python -I decode_child.py SITE`).
Requests come on standard input, answers go to standard output, one after the other: eight bytes of length and an
encoded image; a byte 1, height and width (four bytes each) and 3 bytes of a pixel, or a byte 0, four bytes of length
and a sentence. Whatever an image holds, the answer depends on nothing else.

What a picture is taken to be: its first frame; turned as its EXIF orientation says; of 16 bits the upper eight; on
white where it is transparent; CMYK by Pillow's own conversion, without colour profiles.
"""

from __future__ import annotations

import contextlib
import io
import re
import resource
import struct
import sys
import warnings
import zlib
from typing import Any, BinaryIO

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")
"""What is opened. Pillow knows some forty formats more, rarely used and little attacked; one of them runs a program."""

MAX_PIXELS = 1 << 26
"""Of one picture: 67 megapixels, more than nearly all cameras make, 201 MB once decoded. Bombs of some kilobytes claim
more than that."""

MEMORY_BYTES = 2 << 30
"""Address space of this process: a picture of `MAX_PIXELS` takes up to 1.6 GB of it while it is turned and composed."""

CPU_SECONDS = 60
"""For one image, where the process that asked has died; it waits for half of that."""

_PIECE_BYTES = 1 << 20
_NO_RANGE = ("I", "F")
_ADDRESS = re.compile(r"<[^>]* at 0x[0-9a-f]+>|0x[0-9a-f]+")


class _RefusedError(Exception):
    """Why an image is not decoded, in the words of a sentence about it."""


def decode(data: bytes) -> tuple[int, int, bytes]:
    """(height, width, RGB bytes) of an encoded image.

    Raises:
        Exception: Whatever is wrong with it.
    """
    from PIL import Image

    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]  # a Pillow may be built without some
    with Image.open(io.BytesIO(data), formats=known) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _RefusedError(f"it says that it has {width:,} x {height:,} pixels, and {MAX_PIXELS:,} are the limit")
        if not width * height:
            raise _RefusedError("it has no pixels")
        if image.format == "PNG":
            _check_rows(data)
        image.load()
        if image.size != (width, height):
            raise _RefusedError("it has another size than it says")
        picture = _on_white(_of_eight_bits(_upright(image), str(image.format)))
    return picture.height, picture.width, picture.tobytes()


_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG's colour types
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _check_rows(data: bytes) -> None:
    """Refuse a PNG whose data end before its last row; Pillow would take the rest for black."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * _CHANNELS.get(colour, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    left = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if rows > 0 and columns > 0)
    inflate, place = zlib.decompressobj(), 8
    while left > 0 and place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        rest = data[place + 8 : place + 8 + length] if name == b"IDAT" else b""
        while rest and left > 0:
            left -= len(inflate.decompress(rest, _PIECE_BYTES))
            rest = inflate.unconsumed_tail
        place += 12 + length
    while left > 0 and (more := inflate.decompress(inflate.unconsumed_tail, _PIECE_BYTES)):
        left -= len(more)
    if left > 0:
        raise _RefusedError("it is truncated: its data end before its last row")


def _upright(image: Any) -> Any:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 (a damaged EXIF block says nothing, as to all other viewers)
        return image


def _of_eight_bits(image: Any, kind: str) -> Any:
    """A picture of 16 bits with the upper eight of each value; one of 32 bits has no range that could be meant."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        return image.point(lambda value: value * (1 / 256)).convert("L")
    if image.mode in _NO_RANGE:
        raise _RefusedError("its values have 32 bits, and it does not say which are black and white")
    return image


def _on_white(image: Any) -> Any:
    from PIL import Image

    if ("a" in "".join(image.getbands()).lower() and image.mode != "LAB") or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def reason(error: BaseException) -> str:
    """Why an image was not decoded; the same words for the same bytes, on every machine."""
    if isinstance(error, _RefusedError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"it takes more than {MEMORY_BYTES >> 30} GiB of memory"
    kind = type(error).__name__
    if kind == "UnidentifiedImageError":
        return "it is no image of a kind that is read (PNG, JPEG, GIF, WebP, BMP, TIFF, PPM, AVIF)"
    if kind in ("DecompressionBombError", "DecompressionBombWarning"):
        return f"it has more than {MAX_PIXELS:,} pixels"
    said = _ADDRESS.sub("it", " ".join(str(error).split()))[:200].rstrip(". ")
    return said or kind


def answer(data: bytes) -> bytes:
    """The answer to one request."""
    try:
        height, width, pixels = decode(data)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is a sentence about this image)
        said = reason(error).encode("utf-8", "replace")
        return struct.pack("<BI", 0, len(said)) + said
    return struct.pack("<BII", 1, height, width) + pixels


def limits(what: int, most: int) -> tuple[int, int]:
    """So much of a resource, or what the system allows at most, which only root may raise; and what it allows."""
    hard = resource.getrlimit(what)[1]
    return (most if hard == resource.RLIM_INFINITY else min(most, hard)), hard


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there are no more requests."""
    while len(head := requests.read(8)) == 8:
        (length,) = struct.unpack("<Q", head)
        used = resource.getrusage(resource.RUSAGE_SELF)  # an end for the time in which there is nobody to end it
        spent = int(used.ru_utime + used.ru_stime)
        resource.setrlimit(resource.RLIMIT_CPU, limits(resource.RLIMIT_CPU, spent + CPU_SECONDS))
        answers.write(answer(requests.read(length)))
        answers.flush()


def main(site: str) -> int:
    """Serve, within the limits."""
    resource.setrlimit(resource.RLIMIT_AS, (limits(resource.RLIMIT_AS, MEMORY_BYTES)[0],) * 2)
    sys.path.append(site)
    warnings.simplefilter("ignore")
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    with contextlib.suppress(ImportError):
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # one for each core would take the memory of many on a large machine
    serve(sys.stdin.buffer, sys.stdout.buffer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
