"""Names from a bucket: a real HTTP server on loopback that lists and gives as S3 does."""

from __future__ import annotations

import gzip
import html
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from featurestore.errors import NamesError, SparsemillError
from featurestore.names import fetching
from featurestore.names.fetching import fetch_names

ID = "gemma-2-2b/12-gemmascope-res-16k"


class Bucket(ThreadingHTTPServer):
    """Key -> bytes; pages of two keys; keys in `broken` end early."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.broken: set[str] = set()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Bucket

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        url = urlsplit(self.path)
        if url.path == "/":
            query = parse_qs(url.query)
            keys = sorted(key for key in self.server.objects if key.startswith(query["prefix"][0]))
            first = int(query.get("continuation-token", ["0"])[0].removeprefix("at&"))
            contents = "".join(f"<Contents><Key>{html.escape(key)}</Key></Contents>" for key in keys[first : first + 2])
            more = first + 2 < len(keys)
            following = f"<NextContinuationToken>at&amp;{first + 2}</NextContinuationToken>" if more else ""
            return self._answer(
                f"<?xml version='1.0'?><ListBucketResult>{contents}{following}</ListBucketResult>".encode()
            )
        key = unquote(url.path[1:])
        if key not in self.server.objects:
            return self.send_error(404)
        return self._answer(self.server.objects[key], 10 if key in self.server.broken else 0)

    def _answer(self, data: bytes, missing: int = 0) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) - missing])


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with Bucket() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_all_batches_of_all_explainers_are_fetched(bucket: Bucket, tmp_path: Path) -> None:
    batches = [f"v1/{ID}/explanations/batch-{n}.jsonl.gz" for n in (0, 3, 11)]
    other = f"v1/{ID}/explanations-gpt-4o-mini/batch-0.jsonl"
    bucket.objects = {key: gzip.compress(key.encode()) for key in batches} | {other: b"plain"}
    for name in (
        f"v1/{ID}/features/batch-0.jsonl.gz",
        f"v1/{ID}-b/explanations/batch-0.jsonl.gz",
        f"v1/{ID}/explanations/x.exe",
    ):
        bucket.objects[name] = b"no"
    bucket.objects[f"v1/{ID}/explanations/../../../etc/passwd.jsonl"] = b"no"
    said: list[str] = []
    files = fetch_names(ID, tmp_path, bucket.url, said.append)
    assert list(files.values()) == [f"{bucket.url}/{key}" for key in sorted([*batches, other])]
    assert sorted(path.parent for path in files) == [tmp_path] * 4
    assert {path.read_bytes() for path in files if path.suffix == ".gz"} == {bucket.objects[key] for key in batches}
    assert said == [f"fetching 4 files of names of {ID} from {bucket.url}"]


def test_an_sae_without_names_is_one_sentence(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(NamesError, match="has no names of gemma-2-2b/12-gemmascope-res-16k"):
        fetch_names(ID, tmp_path, bucket.url)


@pytest.mark.parametrize("neuronpedia_id", ["", "gemma", "a/b/c", "a/../b", "../x", "a/b?x=1", "a/b\n"])
def test_an_id_that_is_none_asks_nobody(bucket: Bucket, tmp_path: Path, neuronpedia_id: str) -> None:
    bucket.objects["v1/x/explanations/batch-0.jsonl"] = b""
    with pytest.raises(NamesError):
        fetch_names(neuronpedia_id, tmp_path, bucket.url)
    assert not any("batch" in path for path in bucket.asked)


@pytest.mark.parametrize("base", ["file:///etc", "ftp://127.0.0.1", "neuronpedia"])
def test_other_protocols_are_refused(base: str, tmp_path: Path) -> None:
    with pytest.raises(NamesError, match="is no URL of a bucket"):
        fetch_names(ID, tmp_path, base)


def test_nobody_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SparsemillError, match=r"could not be reached .*; check the network, or import files") as failed:
        fetch_names(ID, tmp_path, "http://127.0.0.1:9")
    assert failed.value.exit_code == 1 and "\n" not in str(failed.value)


def test_silence_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", 0.2)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        with pytest.raises(SparsemillError, match=r"could not be reached .*timed out"):
            fetch_names(ID, tmp_path, f"http://127.0.0.1:{mute.getsockname()[1]}")


def test_a_file_that_breaks_off_is_one_sentence(bucket: Bucket, tmp_path: Path) -> None:
    key = f"v1/{ID}/explanations/batch-0.jsonl"
    bucket.objects[key], bucket.broken = b"x" * 100, {key}
    with pytest.raises(SparsemillError, match="broke off after 90 of 100 bytes"):
        fetch_names(ID, tmp_path, bucket.url)


def test_a_file_beyond_all_bounds_is_refused(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.objects[f"v1/{ID}/explanations/batch-0.jsonl"] = b"x" * 3000
    monkeypatch.setattr(fetching, "MOST_BYTES", 2000)
    with pytest.raises(SparsemillError, match=r"is larger than 2\.0 kB"):
        fetch_names(ID, tmp_path, bucket.url)


def test_a_list_without_end_is_refused(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.objects = {f"v1/{ID}/explanations/batch-{n}.jsonl": b"" for n in range(40)}
    monkeypatch.setattr(fetching, "MOST_FILES", 20)
    with pytest.raises(SparsemillError, match="lists more than 20 files"):
        fetch_names(ID, tmp_path, bucket.url)


def test_what_is_no_bucket_is_said(bucket: Bucket, tmp_path: Path) -> None:
    bucket.objects["page/"] = b"<html>hello</html>"
    with pytest.raises(SparsemillError, match=r"does not answer as a bucket does"):
        fetch_names(ID, tmp_path, f"{bucket.url}/page")
