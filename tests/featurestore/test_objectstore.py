"""URLs of object stores: options, credentials that stay secret, and an end to waiting."""

from __future__ import annotations

import logging
import socket
import threading
import traceback
from collections.abc import Iterator

import pytest
from pyarrow import fs as pafs

from featurestore import objectstore
from featurestore.errors import StoreError, UsageError
from featurestore.files import filesystem
from featurestore.plan import create_store, read_plan
from featurestore.reader import FeatureStore
from featurestore.writer import write_part
from tests.featurestore.conftest import BUCKET, Place, S3Server
from tests.featurestore.stores import SCHEMA, plan_of, random_rows, write_store


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
