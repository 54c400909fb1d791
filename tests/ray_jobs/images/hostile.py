"""Images that are odd, damaged or made to do harm, each with what must become of it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

HEIGHT, WIDTH = 6, 8
_RNG = np.random.default_rng(7)
RGB = _RNG.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
GREY = RGB[..., 0].copy()
DEEP = _RNG.integers(0, 1 << 16, (HEIGHT, WIDTH)).astype(np.uint16)
ALPHA = _RNG.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
SMOOTH = np.stack([np.add.outer(np.arange(64) * 2, np.arange(64)) % 256] * 3, axis=-1).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.round(rgb * share + 255 * (1 - share))


def chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    own = zlib.crc32(name + data) if crc is None else crc
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", own)


def png_of(width: int, height: int, depth: int, colour: int, data: bytes, *more: bytes) -> bytes:
    """A PNG of these rows, with whatever size it says, and other chunks before the data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def _palette() -> tuple[Image.Image, np.ndarray]:
    image = Image.fromarray(RGB).quantize(16)
    return image, np.asarray(image.convert("RGB"))


def _see_through_palette() -> tuple[bytes, np.ndarray]:
    image, colours = _palette()
    index = np.asarray(image)
    data = saved(image, "PNG", transparency=int(index[0, 0]))
    return data, np.where((index == index[0, 0])[..., None], 255, colours)


def _see_through_gif() -> tuple[bytes, np.ndarray]:
    image = Image.fromarray(as_rgb(GREY // 16 * 16)).quantize(16)
    colours, index = np.asarray(image.convert("RGB")), np.asarray(image)
    data = saved(image, "GIF", transparency=int(index[0, 0]), optimize=False)
    return data, np.where((colours == colours[0, 0]).all(axis=-1)[..., None], 255, colours)


def _deep_rows(values: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)


def _turned(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(RGB), kind, exif=exif.tobytes())


def _frames(n: int = 3) -> list[Image.Image]:
    return [Image.fromarray(np.roll(RGB, shift, axis=0)) for shift in range(n)]


def _moving(kind: str, **options: Any) -> bytes:
    first, *rest = _frames()
    return saved(first, kind, save_all=True, append_images=rest, duration=40, **options)


def _cmyk() -> tuple[bytes, np.ndarray]:
    data = saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=100)
    return data, SMOOTH


def _with_profile() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return saved(Image.fromarray(RGB), "PNG", icc_profile=profile)


def _loop() -> bytes:
    """A TIFF whose list of directories is a circle."""
    data = bytearray(saved(Image.fromarray(RGB), "TIFF"))
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, first)
    return bytes(data)


def _big_jpeg() -> bytes:
    """A small JPEG whose header says 65,500 x 65,500."""
    data = bytearray(saved(Image.fromarray(SMOOTH), "JPEG"))
    place = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, place + 5, 65_500, 65_500)
    return bytes(data)


def _text_bomb() -> bytes:
    """A PNG with 64 MiB of compressed text before its pixels."""
    text = b"note\0\0" + zlib.compress(b"a" * (64 << 20), 9)
    rows = b"".join(b"\0" + row.tobytes() for row in RGB)
    return png_of(WIDTH, HEIGHT, 8, 2, rows, chunk(b"zTXt", text))


def _interlaced() -> tuple[bytes, np.ndarray]:
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(_rows(RGB[y::dy, x::dx]) for x, y, dx, dy in passes if RGB[y::dy, x::dx].size)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""), RGB


def _rows(rgb: np.ndarray = RGB) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in rgb)


def exact(data: bytes, wanted: np.ndarray, tolerance: float = 0.0) -> tuple[bytes, np.ndarray | str, float]:
    return data, wanted, tolerance


def wrong(data: bytes, said: str) -> tuple[bytes, np.ndarray | str, float]:
    return data, said, 0.0


_NO_IMAGE = "no image of a kind that is read"

IMAGES: Mapping[str, Callable[[], tuple[bytes, np.ndarray | str, float]]] = {
    "colour png": lambda: exact(saved(Image.fromarray(RGB), "PNG"), RGB),
    "rows by hand": lambda: exact(png_of(WIDTH, HEIGHT, 8, 2, _rows()), RGB),
    "interlaced": lambda: exact(*_interlaced()),
    "grey png": lambda: exact(saved(Image.fromarray(GREY), "PNG"), as_rgb(GREY)),
    "black and white png": lambda: exact(saved(Image.fromarray(GREY > 127), "PNG"), as_rgb((GREY > 127) * 255)),
    "palette": lambda: exact(saved(_palette()[0], "PNG"), _palette()[1]),
    "palette with transparency": lambda: exact(*_see_through_palette()),
    "alpha": lambda: exact(saved(Image.fromarray(np.dstack([RGB, ALPHA])), "PNG"), on_white(RGB, ALPHA), 1),
    "grey alpha": lambda: exact(
        saved(Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), "PNG"), on_white(as_rgb(GREY), ALPHA), 1
    ),
    "one colour is transparent": lambda: exact(
        saved(Image.fromarray(RGB), "PNG", transparency=tuple(map(int, RGB[2, 3]))),
        np.where((RGB[2, 3] == RGB).all(axis=-1)[..., None], 255, RGB),
    ),
    "16-bit grey png": lambda: exact(png_of(WIDTH, HEIGHT, 16, 0, _deep_rows(DEEP)), as_rgb(DEEP >> 8)),
    "16-bit colour png": lambda: exact(
        png_of(WIDTH, HEIGHT, 16, 2, _deep_rows(np.repeat(DEEP, 3, axis=1))), as_rgb(DEEP >> 8)
    ),
    "16-bit tiff": lambda: exact(saved(Image.fromarray(DEEP), "TIFF"), as_rgb(DEEP >> 8)),
    "16-bit pgm": lambda: exact(
        f"P5 {WIDTH} {HEIGHT} 65535\n".encode() + DEEP.astype(">u2").tobytes(), as_rgb(DEEP >> 8)
    ),
    "jpeg": lambda: exact(saved(Image.fromarray(SMOOTH), "JPEG", quality=95), SMOOTH, 24),
    "progressive jpeg": lambda: exact(saved(Image.fromarray(SMOOTH), "JPEG", quality=95, progressive=True), SMOOTH, 24),
    "grey jpeg": lambda: exact(saved(Image.fromarray(SMOOTH[..., 0]), "JPEG", quality=95), SMOOTH, 24),
    "avif": lambda: exact(saved(Image.fromarray(SMOOTH), "AVIF", quality=100), SMOOTH, 24),
    "lossy webp": lambda: exact(saved(Image.fromarray(SMOOTH), "WEBP", quality=100), SMOOTH, 48),
    "cmyk jpeg": lambda: exact(*_cmyk(), 8),
    "turned to the right": lambda: exact(_turned("PNG", 6), np.rot90(RGB, -1)),
    "upside down": lambda: exact(_turned("PNG", 3), RGB[::-1, ::-1]),
    "mirrored and turned": lambda: exact(_turned("TIFF", 5), RGB.transpose(1, 0, 2)),
    "a damaged exif block": lambda: exact(saved(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0MM\0*\0\0\xff\xff"), RGB),
    "animated gif": lambda: exact(_moving("GIF"), np.asarray(Image.open(io.BytesIO(_moving("GIF"))).convert("RGB"))),
    "animated png": lambda: exact(_moving("PNG"), RGB),
    "animated webp": lambda: exact(_moving("WEBP", lossless=True), RGB),
    "see-through gif": lambda: exact(*_see_through_gif()),
    "bmp": lambda: exact(saved(Image.fromarray(RGB), "BMP"), RGB),
    "ppm": lambda: exact(saved(Image.fromarray(RGB), "PPM"), RGB),
    "pages of a tiff": lambda: exact(_moving("TIFF"), RGB),
    "a tiff that goes in a circle": lambda: exact(_loop(), RGB),
    "a colour profile": lambda: exact(_with_profile(), RGB),
    "a single pixel": lambda: exact(saved(Image.fromarray(RGB[:1, :1]), "PNG"), RGB[:1, :1]),
    "a long strip": lambda: exact(
        saved(Image.fromarray(np.tile(RGB[:1], (1, 900, 1))), "PNG"), np.tile(RGB[:1], (1, 900, 1))
    ),
    "something behind its end": lambda: exact(saved(Image.fromarray(RGB), "PNG") + b"PK\3\4" * 99, RGB),
    "a megabyte of metadata": lambda: exact(saved(Image.fromarray(RGB), "PNG", pnginfo=_long_text()), RGB),
    "text": lambda: wrong(b"this is a text and no image " * 9, _NO_IMAGE),
    "a web page": lambda: wrong(b"<!doctype html><title>404</title>", _NO_IMAGE),
    "svg": lambda: wrong(b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', _NO_IMAGE),
    "postscript": lambda: wrong(saved(Image.fromarray(RGB), "EPS"), _NO_IMAGE),
    "pdf": lambda: wrong(saved(Image.fromarray(RGB), "PDF"), _NO_IMAGE),
    "zeros": lambda: wrong(bytes(5_000), _NO_IMAGE),
    "cut png": lambda: wrong(
        saved(Image.fromarray(np.tile(RGB, (9, 9, 1))), "PNG", compress_level=0)[:9_000], "truncated"
    ),
    "cut jpeg": lambda: wrong(saved(Image.fromarray(SMOOTH), "JPEG")[:-300], "runcated"),
    "cut webp": lambda: wrong(saved(Image.fromarray(SMOOTH), "WEBP", lossless=True)[:-40], ""),
    "cut gif": lambda: wrong(_moving("GIF")[:40], ""),
    "rows that are not there": lambda: wrong(png_of(WIDTH, 10 * HEIGHT, 8, 2, _rows()), "truncated"),
    "a wrong checksum": lambda: wrong(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0), crc=1), ""
    ),
    "says 60,000 x 60,000": lambda: wrong(png_of(60_000, 60_000, 8, 2, _rows()), "pixels"),
    "400 million pixels of nothing": lambda: wrong(png_of(20_000, 20_000, 1, 0, bytes(20_000 * 2_501)), "pixels"),
    "a jpeg that lies": lambda: wrong(_big_jpeg(), "pixels"),
    "64 MiB of text in a png": lambda: wrong(_text_bomb(), ""),
    "floats": lambda: wrong(saved(Image.fromarray(RGB[..., 0].astype(np.float32)), "TIFF"), "32 bits"),
    "32-bit integers": lambda: wrong(saved(Image.fromarray(RGB[..., 0].astype(np.int32)), "TIFF"), "32 bits"),
    "no size at all": lambda: wrong(png_of(0, HEIGHT, 8, 2, b""), ""),
}


def _long_text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "a" * 900_000)
    return info
