"""An S3 server on this machine, and a proxy before it that answers as badly as real ones do now and then."""

from __future__ import annotations

import http.client
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pyarrow import fs as pafs

from featurestore.format.store_plan import open_root
from featurestore.storage.files import read_bytes

BUCKET = "stores"
SLOW_SECONDS = 5.0
START_SECONDS = 60.0  # it takes one or two; a loaded machine may take longer
FAULTS = ("error", "slow", "dropped")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect", "host"}


class Proxy(ThreadingHTTPServer):
    """Passes requests on, except that every n-th one fares badly: 503, five seconds late, or no answer.

    Args:
        behind: Port of the server behind.
        every: Which call fares badly; 0 for none.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behind: int, every: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self._every = every
        self._lock = threading.Lock()
        self._number = itertools.count(1)
        self._faults = itertools.cycle(FAULTS)
        self.calls: Counter[str] = Counter()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed in the middle of a call is what these tests are about; all else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def verdict(self, kind: str) -> str:
        """What becomes of the next call."""
        with self._lock:
            self.calls[kind] += 1
            number = next(self._number)
            fault = next(self._faults) if self._every and number % self._every == 0 else ""
            if fault:
                self.calls[fault] += 1
            return fault

    def environment(self) -> dict[str, str]:
        """The standard variables that lead here."""
        keys = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_REGION": "us-east-1"}
        return {
            **keys,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_address[1]}",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass_on(self) -> None:
        body = self._body()
        listing = self.command == "GET" and "list-type" in self.path
        fault = self.server.verdict("LIST" if listing else self.command)
        if fault == "dropped":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "error":
            data = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            self._answer(503, [("Content-Type", "application/xml")], b"" if self.command == "HEAD" else data)
            return
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        server = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            server.request(self.command, self.path, body, {**headers, "Host": self.headers["Host"]})
            answer = server.getresponse()
            data = answer.read()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self._answer(answer.status, kept, data, length)
        finally:
            server.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    def _body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(pieces)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: str | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length if length is not None else str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def s3_server() -> Iterator[int]:
    """moto's server as a process of its own, with one bucket; yields its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port):
            assert process.poll() is None and time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.05)
        maker = pafs.S3FileSystem(
            access_key="a",
            secret_key="b",
            region="us-east-1",
            scheme="http",
            endpoint_override=f"127.0.0.1:{port}",
            allow_bucket_creation=True,
        )
        maker.create_dir(BUCKET)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def proxied(port: int, every: int = 0) -> Iterator[Proxy]:
    """A proxy before the server, running."""
    proxy = Proxy(port, every)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


def stored_parts(uri: str) -> dict[str, bytes]:
    """The parts of a store, wherever it is."""
    fs, root = open_root(uri)
    found = fs.get_file_info(pafs.FileSelector(f"{root}/parts", allow_not_found=True))
    return {info.base_name: read_bytes(fs, info.path) for info in found if not info.base_name.startswith(".")}


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
