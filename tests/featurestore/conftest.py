"""Where stores lie in tests: a directory, or a bucket of a real S3 server on this machine. Indexes go there too."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyarrow import fs as pafs

from featurestore.storage.files import filesystem

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
    """Where one test's store lies, and the environment that a process needs to get there; names are paths below it."""

    base: str
    environment: dict[str, str]
    options: str = ""

    @property
    def uri(self) -> str:
        return f"{self.base}?{self.options}" if self.options else self.base

    def beside(self, suffix: str) -> Place:
        """Another place, whose name ends so."""
        return Place(f"{self.base}{suffix}", self.environment, self.options)

    def path(self, name: str) -> tuple[pafs.FileSystem, str]:
        fs, root = filesystem(self.uri)
        return fs, f"{root}/{name}"

    def read(self, name: str) -> bytes:
        fs, path = self.path(name)
        with fs.open_input_stream(path, compression=None) as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        fs, path = self.path(name)
        fs.create_dir(path.rpartition("/")[0], recursive=True)
        with fs.open_output_stream(path, compression=None) as stream:
            stream.write(data)

    def delete(self, name: str) -> None:
        fs, path = self.path(name)
        fs.delete_file(path)

    def names(self, directory: str) -> list[str]:
        fs, path = self.path(directory)
        return sorted(info.base_name for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """moto's server as a process of its own, with one bucket."""
    with _s3() as server:
        yield server


@pytest.fixture(scope="session")
def other_s3() -> Iterator[S3Server]:
    """Another one, with a bucket of the same name."""
    with _s3() as server:
        yield server


@contextmanager
def _s3() -> Iterator[S3Server]:
    port = _free_port()
    with _server(["moto.server", "-H", "127.0.0.1", "-p", str(port)], f"http://127.0.0.1:{port}/moto-api/") as pid:
        server = S3Server(f"127.0.0.1:{port}", pid)
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


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def _server(module: list[str], url: str) -> Iterator[int]:
    """A Python module as a server, from when it answers at `url`; its process id."""
    process = subprocess.Popen([sys.executable, "-m", *module], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + START_SECONDS
    try:
        while True:
            try:
                urllib.request.urlopen(url).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, f"{module[0]} did not start"
                time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def s3_place(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return Place(f"s3://{BUCKET}/store-{next(_numbers)}", s3_server.environment)


@pytest.fixture(scope="session")
def gcs_host() -> Iterator[str]:
    """host:port of a server that speaks Google Cloud Storage's protocol, a process of its own, with one bucket."""
    port = _free_port()
    options = ["start", "--host=127.0.0.1", f"--port={port}", "--in-memory", f"--default-bucket={BUCKET}"]
    with _server(["gcp_storage_emulator", *options], f"http://127.0.0.1:{port}/storage/v1/b/{BUCKET}"):
        yield f"127.0.0.1:{port}"


@pytest.fixture(params=["local", "s3", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place for a store: on disk, on S3, on Google Cloud Storage."""
    if request.param == "local":
        return Place(str(tmp_path / "store"), {})
    if request.param == "s3":
        found: Place = request.getfixturevalue("s3_place")
        return found
    host = request.getfixturevalue("gcs_host")
    options = f"anonymous=true&endpoint_override={host}&scheme=http"
    return Place(f"gs://{BUCKET}/store-{next(_numbers)}", {"host": host}, options)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's cache, for one test."""
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
