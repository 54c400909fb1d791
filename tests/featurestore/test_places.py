"""A store is a store wherever it lies: every test here runs on a disk, on S3 and on Google Cloud Storage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import quote

import boto3
import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import BufferReader

from featurestore.checks.verify import verify_store
from featurestore.errors import MismatchError, StoreError
from featurestore.format.store_plan import check_place
from featurestore.reader import FeatureStore
from featurestore.storage.files import atomic_write, read_bytes, sha256_file
from featurestore.writing.writer import committed_units, create_store, finish_store, read_record, write_part
from tests.featurestore.conftest import Place
from tests.featurestore.stores import SCHEMA, plan_of, random_rows, write_store

ROOT = Path(__file__).parents[2]
SIZES = (9, 6, 9)


@pytest.fixture
def store(place: Place) -> Place:
    write_store(place.uri, SIZES)
    return place


def part(unit: int) -> str:
    return f"parts/part-{unit:06d}.parquet"


def problem_of(place: Place, quick: bool = False) -> str:
    report = verify_store(place.uri, quick)
    assert not report.ok
    return "\n".join(report.problems)


def flip(place: Place, name: str, at: int) -> None:
    data = bytearray(place.read(name))
    data[at] ^= 0x10
    place.write(name, bytes(data))


def test_what_was_written_is_read_back(place: Place) -> None:
    _, parts = write_store(place.uri, SIZES)
    opened = FeatureStore.open(place.uri)
    assert opened.complete and len(opened) == 24
    assert opened.documents().collect()["doc_id"].to_list() == [doc_id for rows in parts for doc_id in rows.doc_id]
    X, doc_id = opened.matrix("l12_64", "count")
    assert X.data.tolist() == np.concatenate([rows.sparse["l12_64"].values["count"] for rows in parts]).tolist()
    assert len(doc_id) == 24
    dense = opened.dense("resid_post_9__hidden_mean")
    assert np.isfinite(dense).all(axis=1).sum() == sum((rows.n_tokens > 0).sum() for rows in parts)


def test_a_sound_store_verifies(store: Place) -> None:
    assert verify_store(store.uri).problems == ()
    assert verify_store(store.uri, quick=True).problems == ()


def test_the_same_rows_give_the_same_bytes(place: Place, tmp_path: Path) -> None:
    write_store(place.uri, SIZES)
    write_store(tmp_path / "other", SIZES)
    for unit in range(3):
        assert place.read(part(unit)) == (tmp_path / "other" / part(unit)).read_bytes()


def test_a_store_being_written_is_read_only_when_asked_for(place: Place) -> None:
    plan = plan_of(SIZES)
    create_store(place.uri, plan)
    write_part(place.uri, plan, 1, random_rows(SCHEMA, 6))
    with pytest.raises(StoreError, match="1 of 3 units are there; rerun extract"):
        FeatureStore.open(place.uri)
    assert len(FeatureStore.open(place.uri, partial=True)) == 6
    assert list(committed_units(place.uri)) == [1]


def test_another_job_is_refused_and_the_same_one_is_not(store: Place) -> None:
    create_store(store.uri, plan_of(SIZES))
    with pytest.raises(MismatchError, match="bundle"):
        create_store(store.uri, plan_of(SIZES, bundle="other"))


def test_a_place_with_other_things_is_refused(place: Place) -> None:
    place.write("notes.txt", b"mine")
    with pytest.raises(StoreError, match="is not empty and no feature store"):
        check_place(place.uri)


def test_a_record_says_what_lies_there(store: Place) -> None:
    record = read_record(store.uri, 1, plan_of(SIZES))
    assert record.bytes == len(store.read(part(1)))
    assert record.sha256 == sha256_file(*store.path(part(1)))


@pytest.mark.parametrize("quick", [True, False])
def test_missing_truncated_swapped_renamed_and_duplicated_parts_are_found(store: Place, quick: bool) -> None:
    sound = [store.read(part(unit)) for unit in range(3)]
    store.delete(part(1))
    assert f"{part(1)}: is missing" in problem_of(store, quick)
    store.write(part(1), sound[1][:-100])
    assert f"{part(1)}: has " in problem_of(store, quick)
    store.write(part(1), sound[0])
    assert f"{part(1)}: holds unit 0" in problem_of(store, quick)
    store.write(part(1), sound[1])
    store.write(part(3), sound[1])
    assert problem_of(store, quick) == f"{part(3)}: belongs to no unit of this store"
    store.delete(part(3))
    store.write(part(0), sound[2])
    store.write(part(2), sound[0])
    found = problem_of(store, quick)
    assert f"{part(0)}: holds unit 2" in found and f"{part(2)}: holds unit 0" in found


def test_a_flipped_byte_is_found(store: Place) -> None:
    for at in (0, 500, -500, -1):
        flip(store, part(1), at)
        assert f"{part(1)}: its sha256 is not the one in manifest.json" in problem_of(store)
        flip(store, part(1), at)
    assert verify_store(store.uri).ok


def test_an_edited_plan_or_manifest_is_found(store: Place) -> None:
    document = json.loads(store.read("store.json"))
    store.write("store.json", json.dumps(document | {"spec": {}}).encode())
    assert problem_of(store) == "store.json: is not the file that manifest.json recorded; it was edited"
    store.write("store.json", json.dumps(document | {"identity": {}}).encode())
    assert "store.json: its contents do not give the fingerprint it records" in problem_of(store)


def test_a_write_that_fails_leaves_what_was_there(place: Place) -> None:
    fs, path = place.path("file")
    atomic_write(fs, path, b"old")
    with pytest.raises(TypeError):
        atomic_write(fs, path, "text is not bytes")
    assert read_bytes(fs, path) == b"old"


def test_a_write_that_fails_makes_nothing_new(place: Place) -> None:
    fs, path = place.path("file")
    with pytest.raises(TypeError):
        atomic_write(fs, path, "text is not bytes")
    assert place.names("") == []


WRITER = """
import sys
from featurestore.writing.writer import write_part
from tests.featurestore.stores import SCHEMA, plan_of, random_rows
for _ in range(8):
    write_part(sys.argv[1], plan_of([60, 4]), 0, random_rows(SCHEMA, 60, seed=int(sys.argv[2])))
"""


def in_one_request(place: Place, name: str) -> bytes:
    """What lies there at one moment: Arrow asks for the size first, and the file may be replaced before it reads."""
    if place.base.startswith("/"):
        return place.read(name)
    bucket, _, key = place.base.partition("://")[2].partition("/")
    if place.base.startswith("gs://"):
        path = quote(f"{key}/{name}", safe="")
        url = f"http://{place.environment['host']}/storage/v1/b/{bucket}/o/{path}?alt=media"
        with urllib.request.urlopen(url) as answer:
            return answer.read()
    client = boto3.client("s3", endpoint_url=place.environment["AWS_ENDPOINT_URL"])
    return client.get_object(Bucket=bucket, Key=f"{key}/{name}")["Body"].read()


def test_concurrent_writers_of_one_part_leave_exactly_one_whole_part(place: Place) -> None:
    plan = plan_of([60, 4])
    create_store(place.uri, plan)
    env = {**os.environ, **place.environment, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITER, place.uri]
    writers = [subprocess.Popen([*command, str(seed)], cwd=ROOT, env=env) for seed in range(2)]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if committed_units(place.uri):
            seen.add(in_one_request(place, part(0)))
    assert [writer.returncode for writer in writers] == [0, 0]
    assert place.names("parts") == ["part-000000.parquet"]
    assert len(seen | {place.read(part(0))}) <= 2  # at every moment one writer's bytes, never a mixture
    for data in seen | {place.read(part(0))}:
        assert pq.ParquetFile(BufferReader(data)).metadata.num_rows == 60
    finish_store(place.uri, [read_record(place.uri, 0, plan), write_part(place.uri, plan, 1, random_rows(SCHEMA, 4))])
    assert all("occurs" in problem for problem in verify_store(place.uri).problems)  # the two units share ids here
