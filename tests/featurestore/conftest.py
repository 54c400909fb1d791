"""Where stores lie in tests: a directory, or a bucket of a real S3 server on this machine. Indexes go there too."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyarrow import fs as pafs

from featurestore.files import filesystem

BUCKET = "stores"
START_SECONDS = 60.0  # it takes one; a loaded machine may take longer
_numbers = itertools.count()


@dataclass(frozen=True)
class S3Server:
    """A server that speaks S3, and how to reach it."""

    host: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """The standard variables that lead there."""
        keys = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_REGION": "eu-west-1"}
        return {**keys, "AWS_ENDPOINT_URL": f"http://{self.host}", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True)
class Place:
    """Where one test's store lies; names are paths below it."""

    uri: str
    environment: dict[str, str]

    def _path(self, name: str) -> tuple[pafs.FileSystem, str]:
        fs, root = filesystem(self.uri)
        return fs, f"{root}/{name}"

    def read(self, name: str) -> bytes:
        fs, path = self._path(name)
        with fs.open_input_stream(path, compression=None) as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        fs, path = self._path(name)
        fs.create_dir(path.rpartition("/")[0], recursive=True)
        with fs.open_output_stream(path, compression=None) as stream:
            stream.write(data)

    def delete(self, name: str) -> None:
        fs, path = self._path(name)
        fs.delete_file(path)

    def names(self, directory: str) -> list[str]:
        fs, path = self._path(directory)
        return sorted(info.base_name for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """moto's server as a process of its own, with one bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{port}/moto-api/", process)
        server = S3Server(f"127.0.0.1:{port}", process.pid)
        maker = pafs.S3FileSystem(
            access_key="a",
            secret_key="b",
            region="us-east-1",
            scheme="http",
            endpoint_override=server.host,
            allow_bucket_creation=True,
        )
        maker.create_dir(BUCKET)
        yield server
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.05)


@pytest.fixture
def s3_place(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return Place(f"s3://{BUCKET}/store-{next(_numbers)}", s3_server.environment)


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place for a store, once on disk and once on S3."""
    return Place(str(tmp_path / "store"), {}) if request.param == "local" else request.getfixturevalue("s3_place")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's cache, for one test."""
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
