"""A writer killed at any byte of a part leaves no visible part, or the whole one: on disk and on S3."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import boto3
import pytest

from featurestore.checks.verify import verify_store
from featurestore.writing.writer import committed_units, create_store, finish_store, read_record, write_part
from tests.featurestore.conftest import Place
from tests.featurestore.stores import SCHEMA, plan_of, random_rows

ROOT = Path(__file__).parents[2]
PLAN = plan_of([6, 4])

# One process that forks a writer for each byte limit: the kernel kills it (SIGXFSZ) when its file would grow beyond.
LOCAL = """
import os, resource, signal, sys
from featurestore.format.part import encode_part
from featurestore.storage.files import atomic_write, filesystem
from tests.featurestore.stores import SCHEMA, plan_of, random_rows
data = encode_part(plan_of([6, 4]), 0, random_rows(SCHEMA, 6))
fs, path = filesystem(sys.argv[1] + "/parts/part-000000.parquet")
assert not os.path.exists(path)
for limit in [*range(0, len(data), len(data) // 60), len(data) - 1, len(data)]:
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        atomic_write(fs, path, data)
        os._exit(0)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert killed == (limit < len(data)) == (not os.path.exists(path)), limit
"""

# Enough bytes for several parts of a multipart upload, which end at 10 MiB each.
S3_BYTES = 25_000_000
REMOTE = """
import sys, numpy as np
from featurestore.storage.files import atomic_write, filesystem
fs, path = filesystem(sys.argv[1] + "/parts/part-000000.parquet")
atomic_write(fs, path, np.random.default_rng(0).bytes(int(sys.argv[2])))
"""


def test_a_local_writer_killed_at_any_byte_leaves_no_visible_part(tmp_path: Path) -> None:
    create_store(str(tmp_path), PLAN)
    command = [sys.executable, "-c", LOCAL, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert list(committed_units(str(tmp_path))) == [0]
    second = write_part(str(tmp_path), PLAN, 1, random_rows(SCHEMA, 4, prefix="other"))
    finish_store(str(tmp_path), [read_record(str(tmp_path), 0, PLAN), second])
    assert verify_store(str(tmp_path)).ok


class Proxy:
    """A line to the S3 server that kills the writer when so many bytes have gone up."""

    def __init__(self, host: str, kill_at: int) -> None:
        name, _, port = host.partition(":")
        self.target, self.kill_at, self.sent = (name, int(port)), kill_at, 0
        self.victim: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if upwards:
                    with self.lock:
                        room = self.kill_at - self.sent
                        self.sent += len(data)
                    if room < len(data):
                        sink.sendall(data[: max(room, 0)])
                        assert self.victim is not None
                        self.victim.send_signal(signal.SIGKILL)
                        return
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                end.close()


@pytest.mark.parametrize(("size", "shares"), [(40_000, (0.0, 0.02, 0.5, 0.99)), (S3_BYTES, (0.3, 0.7, 0.999))])
def test_an_s3_writer_killed_at_any_byte_leaves_no_visible_part(
    s3_place: Place, size: int, shares: tuple[float, ...]
) -> None:
    for share in shares:
        proxy = Proxy(s3_place.environment["AWS_ENDPOINT_URL"].removeprefix("http://"), int(size * share))
        env = {
            **os.environ,
            **s3_place.environment,
            "AWS_ENDPOINT_URL": f"http://{proxy.host}",
            "PYTHONPATH": str(ROOT),
        }
        proxy.victim = subprocess.Popen([sys.executable, "-c", REMOTE, s3_place.uri, str(size)], cwd=ROOT, env=env)
        assert proxy.victim.wait(120) == -signal.SIGKILL
        proxy.listener.close()
        assert committed_units(s3_place.uri) == {}, share


def test_what_a_killed_writer_leaves_on_s3_can_be_listed_and_aborted_as_the_docs_say(s3_place: Place) -> None:
    place = s3_place.beside("-stale")
    endpoint = place.environment["AWS_ENDPOINT_URL"]
    proxy = Proxy(endpoint.removeprefix("http://"), int(S3_BYTES * 0.9))
    env = {**os.environ, **place.environment, "AWS_ENDPOINT_URL": f"http://{proxy.host}", "PYTHONPATH": str(ROOT)}
    proxy.victim = subprocess.Popen([sys.executable, "-c", REMOTE, place.uri, str(S3_BYTES)], cwd=ROOT, env=env)
    assert proxy.victim.wait(120) == -signal.SIGKILL
    proxy.listener.close()
    keys = {"aws_access_key_id": "test-key", "aws_secret_access_key": "test-secret", "region_name": "eu-west-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **keys)
    bucket, _, prefix = place.uri.removeprefix("s3://").partition("/")
    (stale,) = client.list_multipart_uploads(Bucket=bucket, Prefix=f"{prefix}/")["Uploads"]
    assert stale["Key"] == f"{prefix}/parts/part-000000.parquet" and committed_units(place.uri) == {}
    client.abort_multipart_upload(Bucket=bucket, Key=stale["Key"], UploadId=stale["UploadId"])
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket, Prefix=f"{prefix}/")

    page = (ROOT / "docs/storage.md").read_text(encoding="utf-8")
    rule = json.loads(page.partition("<!-- lifecycle -->\n```json\n")[2].partition("```")[0])
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rule)
    assert client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == rule["Rules"]
    client.delete_bucket_lifecycle(Bucket=bucket)
