"""What is missing, closed or failing behind a URL of fsspec is told apart; the server is a real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from pyarrow import fs as pafs

from featurestore.errors import CorpusError
from featurestore.finding.files import find_files
from featurestore.storage.files import atomic_write, filesystem, list_files, read_bytes
from featurestore.tables.record import open_raw, refusals
from ray_jobs.workers.failures import transient_storage_errors

TABLE = b"id,text\n" + b"".join(b"%d,some words\n" % n for n in range(1000))


class Server(ThreadingHTTPServer):
    """Serves one table, and answers otherwise once it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.status = 200
        self.cuts = False
        self.url = f"http://127.0.0.1:{self.server_port}/t.csv"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.send(body=False)

    def do_GET(self) -> None:
        self.send(body=True)

    def send(self, body: bool) -> None:
        status = self.server.status if self.path == "/t.csv" else 404
        self.send_response(status)
        self.send_header("Content-Length", str(len(TABLE) if status == 200 else 0))
        self.end_headers()
        if body and status == 200:
            self.wfile.write(TABLE[: len(TABLE) // 2] if self.server.cuts else TABLE)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests print what they mean to."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_what_is_there_is_read(server: Server) -> None:
    fs, path = filesystem(server.url)
    assert read_bytes(fs, path) == TABLE
    with fs.open_input_file(path) as file:
        assert file.read() == TABLE


def test_a_file_is_missing_only_where_the_server_says_so(server: Server) -> None:
    fs, path = filesystem(f"{server.url}.gz")
    with pytest.raises(FileNotFoundError):
        read_bytes(fs, path)
    assert fs.get_file_info(path).type == pafs.FileType.NotFound


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_fails_for_a_moment_has_lost_no_file(server: Server, status: int) -> None:
    fs, path = filesystem(server.url)
    server.status = status
    for ask in (lambda: read_bytes(fs, path), lambda: fs.open_input_file(path), lambda: fs.get_file_info(path)):
        with pytest.raises(OSError, match=str(status)) as failed:
            ask()
        assert not isinstance(failed.value, FileNotFoundError)


def test_a_file_that_could_not_be_asked_for_is_not_said_to_be_gone_when_it_is_to_be_removed(server: Server) -> None:
    fs, path = filesystem(server.url)
    server.status = 503
    with pytest.raises(OSError, match="503") as failed:
        fs.delete_file(path)
    assert not isinstance(failed.value, FileNotFoundError)


def test_a_server_that_fails_has_no_empty_directory(server: Server) -> None:
    fs, path = filesystem(server.url.removesuffix("/t.csv"))
    server.status = 503
    with pytest.raises(OSError, match="503"):
        list_files(fs, f"{path}/t.csv")


def test_a_server_that_is_gone_has_lost_no_file(server: Server) -> None:
    fs, path = filesystem(server.url)
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match="connect") as failed:
        read_bytes(fs, path)
    assert not isinstance(failed.value, FileNotFoundError)


def test_a_closed_file_is_said_to_be_closed(server: Server) -> None:
    fs, path = filesystem(server.url)
    server.status = 403
    with pytest.raises(PermissionError, match="403"):
        read_bytes(fs, path)


def test_a_body_that_ends_early_is_an_error_of_storage_that_is_tried_again(server: Server) -> None:
    (file,) = find_files([server.url], None)

    def read() -> None:
        with refusals(file), ExitStack() as stack:
            open_raw(file, stack).read()

    server.cuts = True
    with pytest.raises(CorpusError, match="cannot be read"):
        read()
    with pytest.raises(OSError, match="cannot be read") as failed, transient_storage_errors():
        read()
    assert not isinstance(failed.value, CorpusError)
    server.cuts, server.status = False, 429
    with pytest.raises(OSError, match="429"), transient_storage_errors():
        read()


def test_a_directory_that_storage_fails_to_make_is_an_error_of_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    fs, path = filesystem("memory://failing/store")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the service is busy")

    monkeypatch.setattr(fs.handler.fs, "mkdir", fail)
    with pytest.raises(OSError, match="Input/output error"):
        atomic_write(fs, f"{path}/a", b"data")
