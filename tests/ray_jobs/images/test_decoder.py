"""Images become arrays, or a sentence; whatever one of them does, the next one is decoded as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurestore.tables.images import MAX_IMAGE_BYTES, ImageFile
from ray_jobs.images.decode_child import MEMORY_BYTES
from ray_jobs.images.decoder import DecodedImages, ImageDecoder, decoder_version
from tests.ray_jobs.images.hostile import IMAGES, RGB, saved
from tests.tiny_vision import png


@pytest.fixture(scope="module")
def decoder() -> Iterator[ImageDecoder]:
    decoder = ImageDecoder()
    yield decoder
    decoder.close()


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_is_right_or_says_why_not_and_its_neighbour_is_untouched(name: str, decoder: ImageDecoder) -> None:
    data, wanted, tolerance = IMAGES[name]()
    found = decoder.decode(data)
    if isinstance(wanted, str):
        assert isinstance(found, str), "it was decoded"
        assert found.startswith("the image cannot be decoded: ")
        assert wanted in found
        assert "0x" not in found
        assert "\n" not in found
        assert len(found) < 300
    else:
        assert not isinstance(found, str), found
        assert found.dtype == np.uint8
        assert found.shape == wanted.shape
        assert np.abs(found.astype(int) - wanted).max() <= tolerance
    neighbour = decoder.decode(png(RGB))
    assert np.array_equal(neighbour, RGB)


@pytest.mark.parametrize("name", ["RLIMIT_CPU", "RLIMIT_AS"])
def test_a_limit_that_the_system_sets_is_never_asked_to_be_raised(name: str) -> None:
    asked = (
        f"import resource as r; r.setrlimit(r.{name}, (2**32, 2**32)); "
        f"from ray_jobs.images.decode_child import limits; "
        f"print(limits(r.{name}, 2**33) == (2**32, 2**32), limits(r.{name}, 7) == (7, 2**32))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_there_are_forty_of_them_and_more() -> None:
    assert len(IMAGES) >= 40


def test_a_child_that_is_killed_is_replaced(decoder: ImageDecoder) -> None:
    assert np.array_equal(decoder.decode(png(RGB)), RGB)
    assert decoder._child is not None
    os.kill(decoder._child.pid, signal.SIGKILL)
    decoder._child.wait()
    assert np.array_equal(decoder.decode(png(RGB)), RGB)


def test_an_image_that_ends_its_process_costs_itself(decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.array_equal(decoder.decode(png(RGB)), RGB)
    assert decoder._child is not None
    pid = decoder._child.pid
    read = decoder._read

    def killed_first(n_bytes: int, deadline: float) -> bytearray:
        os.kill(pid, signal.SIGKILL)
        return read(n_bytes, deadline)

    monkeypatch.setattr(decoder, "_read", killed_first)
    big = np.tile(RGB, (200, 200, 1))
    assert decoder.decode(png(big)) == "the image cannot be decoded: it ends the process that decodes it"
    monkeypatch.undo()
    assert np.array_equal(decoder.decode(png(RGB)), RGB)


def test_an_image_that_takes_too_long_costs_itself() -> None:
    slow = ImageDecoder(seconds=0.02)
    try:
        assert np.array_equal(slow.decode(png(RGB)), RGB)  # starting is not counted
        big = saved(Image.fromarray(np.zeros((6000, 6000, 3), dtype=np.uint8)), "PNG", compress_level=1)
        assert slow.decode(big) == "the image cannot be decoded: it takes more than 0.02 seconds"
        assert np.array_equal(slow.decode(png(RGB)), RGB)
    finally:
        slow.close()


@pytest.mark.slow
def test_the_largest_picture_that_is_decoded_stays_within_its_memory() -> None:
    decoder = ImageDecoder()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = np.zeros((8192, 8192, 4), dtype=np.uint8)
    picture[:100, :50] = 200
    data = saved(Image.fromarray(picture), "PNG", exif=exif.tobytes(), compress_level=1)
    found = decoder.decode(data)
    assert decoder._child is not None
    status = Path(f"/proc/{decoder._child.pid}/status").read_text()
    decoder.close()
    assert not isinstance(found, str), found
    assert found.shape == (8192, 8192, 3)
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak * 1024 < MEMORY_BYTES


def test_files_are_read_when_they_are_asked_for_and_only_within_their_folder(
    decoder: ImageDecoder, tmp_path: Path
) -> None:
    within = tmp_path / "corpus"
    within.mkdir()
    (within / "a.png").write_bytes(png(RGB))
    (within / "large.png").write_bytes(bytes(MAX_IMAGE_BYTES + 1))
    (within / "empty.png").touch()
    (tmp_path / "secret.png").write_bytes(png(RGB))
    (within / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(within / "pipe.png")

    def image(name: str) -> ImageFile:
        return ImageFile(str(within), str(within / name), str(within))

    names = ("a.png", "gone.png", "large.png", "empty.png", "link.png", "pipe.png")
    images = DecodedImages([*map(image, names), None, png(RGB)], decoder)
    assert np.array_equal(images[0], RGB)
    assert images[1] == "the image's file 'gone.png' is not there"
    assert "67,108,864 are the limit" in str(images[2])
    assert images[3] == "the image's file is empty"
    assert images[4] == "the image's file is a link that leaves the directory of its table"
    assert images[5] == "the image's file 'pipe.png' is no regular file"
    assert images[6] == "the document has no image"
    assert np.array_equal(images[7], RGB)


def test_what_decodes_is_named_with_the_libraries_that_round() -> None:
    assert decoder_version().startswith("13.")
    assert "libjpeg_turbo" in decoder_version()
