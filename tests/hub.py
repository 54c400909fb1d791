"""A Hugging Face hub on loopback: real HTTP for the real client, repositories that are folders, every request noted."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

FIRST, SECOND = "1" * 40, "2" * 40
"""Commits of a repository; what `main` means is up to the test."""


@dataclass
class Hub:
    """A hub that serves folders.

    Attributes:
        url: For HF_ENDPOINT.
        repositories: Name -> folder.
        main: The commit that `main` means.
        requests: "METHOD path" of every request so far.
        ranges: "path first-last" of those that asked for some bytes of a file.
        tokens: Access tokens that came with them.
        refused: Repositories for which it answers with a status and a code of its own, whatever is asked.
    """

    url: str
    repositories: Mapping[str, Path]
    main: str = FIRST
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)

    def downloads(self, suffix: str) -> list[str]:
        """Requests for the contents of files with this suffix."""
        return [request for request in self.requests if request.startswith("GET") and request.endswith(suffix)]


@contextmanager
def serve_hub(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    """Serve for as long as it lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self, body: bool) -> None:
            path = unquote(self.path.partition("?")[0])
            hub.requests.append(f"{self.command} {path}")
            if token := self.headers.get("Authorization"):
                hub.tokens.add(token.removeprefix("Bearer "))
            is_api = path.startswith("/api/models/")
            owner, name, *rest = path.removeprefix("/api/models" if is_api else "").strip("/").split("/")
            folder = hub.repositories.get(f"{owner}/{name}")
            if (refused := hub.refused.get(f"{owner}/{name}")) is not None:
                self._send(refused[0], b"{}", {"X-Error-Code": refused[1]}, body)
            elif folder is None:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
            elif is_api and rest[:1] == ["tree"]:
                files = [path for path in folder.rglob("*") if path.is_file()]
                entries = [
                    {
                        "type": "file",
                        "path": str(path.relative_to(folder)),
                        "size": path.stat().st_size,
                        "oid": _etag(path),
                    }
                    for path in files
                ]
                self._send(200, json.dumps(entries).encode(), {}, body)
            elif is_api:
                commit = hub.main if rest[-1:] in ([], ["main"]) else rest[-1]
                info = {"id": f"{owner}/{name}", "sha": commit, "siblings": [], "tags": []}
                self._send(200, json.dumps(info).encode(), {}, body)
            else:
                commit, file = rest[1], folder.joinpath(*rest[2:])
                if file.is_file():
                    headers = {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": hub.main if commit == "main" else commit}
                    wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                    if wanted is None:
                        self._send(200, file.read_bytes(), headers, body)
                    else:
                        first, last = int(wanted[1]), min(int(wanted[2]), file.stat().st_size - 1)
                        hub.ranges.append(f"{path} {first}-{last}")
                        headers["Content-Range"] = f"bytes {first}-{last}/{file.stat().st_size}"
                        self._send(206, file.read_bytes()[first : last + 1], headers, body)
                else:
                    self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, body)

        def _send(self, status: int, data: bytes, headers: Mapping[str, str], body: bool) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}", repositories)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
