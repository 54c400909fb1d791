"""URLs of object stores: options, credentials that stay secret, and an end to waiting."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pyarrow import fs as pafs

from featurestore.errors import StoreError, UsageError
from featurestore.format.store_plan import create_store, read_plan
from featurestore.reader import FeatureStore
from featurestore.storage import objectstore, reachable
from featurestore.storage.files import filesystem, reached
from featurestore.writing.writer import write_part
from tests.featurestore.conftest import BUCKET, Place, S3Server
from tests.featurestore.stores import SCHEMA, plan_of, random_rows, write_store

ROOT = Path(__file__).parents[3]


@pytest.fixture
def silent() -> Iterator[str]:
    """host:port of a server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def accept() -> None:
            try:
                while True:
                    held.append(listener.accept()[0])
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_an_endpoint_in_the_url_needs_no_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in s3_server.environment:
        monkeypatch.delenv(name, raising=False)
    uri = f"s3://key:secret@{BUCKET}/by-url?endpoint_override={s3_server.host}&scheme=http&region=eu-west-1"
    write_store(uri)
    assert FeatureStore.open(uri).verify().ok


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_standard_variables_lead_to_an_endpoint(
    s3_place: Place, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv(name, s3_place.environment["AWS_ENDPOINT_URL"])
    write_store(s3_place.uri)
    assert FeatureStore.open(s3_place.uri).complete


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://", "is no bucket"),
        ("s3:///path", "is no bucket"),
        ("s3://Bucket/path", "lower-case bucket"),
        ("s3://bucket:9000/path", "no port"),
        (
            "s3://bucket/path?verify=false",
            "unknown option 'verify' in the URL; there are: region, endpoint_override, scheme",
        ),
        ("gs://bucket/path?region=x", "unknown option 'region' in the URL"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_in_one_sentence(uri: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        filesystem(uri)


def test_a_google_url_opens_arrows_own_file_system() -> None:
    fs, path = filesystem("gs://bucket/a/store/?anonymous=true&endpoint_override=127.0.0.1:1&scheme=http")
    assert isinstance(fs, pafs.GcsFileSystem) and path == "bucket/a/store"


def test_credentials_are_in_no_message_no_log_and_no_file(
    s3_server: S3Server, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    where = f"endpoint_override={s3_server.host}&scheme=http&region=eu-west-1"
    uri = f"s3://AKIAKEY:TopSecret@{BUCKET}/secrets?{where}"
    plan = plan_of([6])
    said = []
    create_store(uri, plan)
    write_part(uri, plan, 0, random_rows(SCHEMA, 6))
    for attempt in (
        lambda: FeatureStore.open(uri),
        lambda: read_plan(f"s3://AKIAKEY:TopSecret@{BUCKET}/nothing?{where}"),
        lambda: create_store(f"s3://AKIAKEY:TopSecret@no-such-bucket/x?{where}", plan),
        lambda: create_store(uri, plan_of([6], bundle="other")),
        lambda: filesystem(f"s3://AKIAKEY:TopSecret@{BUCKET}/x?nonsense=1"),
    ):
        with pytest.raises((StoreError, UsageError)) as caught:
            attempt()
        said.append("".join(traceback.format_exception_only(caught.value)))
    fs, root = filesystem(uri)
    with fs.open_input_stream(f"{root}/store.json") as stream:
        said.append(stream.read().decode())
    said += [caplog.text, *capfd.readouterr()]
    assert all("TopSecret" not in text and "AKIAKEY" not in text for text in said)


def test_a_server_that_never_answers_is_given_up(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectstore, "REQUEST_SECONDS", 1.0)
    monkeypatch.setattr(objectstore, "ATTEMPTS", 2)
    uri = f"s3://key:secret@bucket/store?endpoint_override={silent}&scheme=http&region=eu-west-1"
    with pytest.raises(StoreError, match=r"s3://bucket/store cannot be read .*Less than 1 bytes/sec"):
        read_plan(uri)


SILENT = (
    "s3://key:secret@bucket/store?endpoint_override={}&scheme=http&region=eu-west-1",
    "gs://bucket/store?endpoint_override={}&scheme=http&anonymous=true",
    "http://{}/store",
)


@pytest.mark.parametrize("url", SILENT)
def test_storage_that_does_not_answer_at_first_is_one_sentence(
    silent: str, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr(reachable, "ANSWER_SECONDS", 1.0)
    begun = time.monotonic()
    with pytest.raises(StoreError) as caught:
        FeatureStore.open(url.format(silent))
    assert time.monotonic() - begun < 10
    assert "/store cannot be read (its storage does not answer, see to the network: nothing within 1 s); check" in str(
        caught.value
    )
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/store?endpoint_override=nowhere.invalid&region=eu-west-1",
        "s3://no-such-bucket-of-anybody.invalid/store",
        "gs://bucket/store?endpoint_override=https://nowhere.invalid&anonymous=true",
        "https://nowhere.invalid/store",
    ],
)
def test_a_host_without_an_address_is_named_as_the_reason(url: str) -> None:
    with pytest.raises(StoreError, match=r"does not answer, .*([Rr]esolve host|Cannot connect to host)"):
        reached(url)


def test_what_does_not_answer_is_tried_again_by_a_run(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_jobs.workers.failures import transient_storage_errors

    monkeypatch.setattr(reachable, "ANSWER_SECONDS", 0.2)
    with pytest.raises(OSError, match="does not answer"), transient_storage_errors():
        reached(SILENT[0].format(silent))


def test_a_refusal_is_an_answer(s3_place: Place) -> None:
    assert reached(s3_place.uri)[1]
    assert reached("s3://no-such-bucket/x")[1] == "no-such-bucket/x"


@pytest.mark.slow
def test_no_command_waits_longer_than_twenty_seconds_and_none_hangs_when_it_ends(silent: str, tmp_path: Path) -> None:
    store = SILENT[1].format(silent)
    job = {
        "corpus": {"path": "c.jsonl", "text": "text"},
        "model": {"name": "./m"},
        "saes": [{"path": "s"}],
        "store": store,
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\n')
    for command in (
        ["status", store],
        ["verify", store],
        ["show", store],
        ["plan", "job.yaml"],
        ["extract", "job.yaml"],
    ):
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "sparsemill", *command, "--json"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
        )
        took = time.monotonic() - begun
        assert done.returncode == 2, done.stderr
        assert "storage does not answer, see to the network: nothing within 15 s" in json.loads(done.stdout)["error"]
        assert done.stderr.count("\n") == 1
        assert took < 40, f"{command[0]} took {took:.0f} s"  # 15 and the start of a program on a busy machine


def test_every_wait_has_an_end_and_clients_are_shared() -> None:
    assert 0 < objectstore.CONNECT_SECONDS < 60 and 0 < objectstore.REQUEST_SECONDS < 120
    assert 1 < objectstore.ATTEMPTS < 20 and 0 < objectstore.GCS_SECONDS < 600
    uri = "s3://key:secret@bucket/a?endpoint_override=127.0.0.1:1&scheme=http&region=eu-west-1"
    assert filesystem(uri)[0] is filesystem(uri.replace("/a?", "/b?"))[0]


@pytest.mark.parametrize("uri", ["s3://bucket/x?endpoint_override=127.0.0.1:1&scheme=http&region=x"])
def test_a_server_that_is_not_there_is_a_sentence(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectstore, "ATTEMPTS", 1)
    objectstore._s3.cache_clear()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(
        StoreError, match=r"^s3://bucket/x cannot be read \([^\n]*; check the path and your access to it$"
    ):
        read_plan(uri)
    objectstore._s3.cache_clear()
