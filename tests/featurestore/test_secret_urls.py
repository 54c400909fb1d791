"""A URL with a secret goes through every command that takes one, and the secret comes out nowhere: page, JSON, file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.fs as pafs
import pytest
from scipy.sparse import load_npz

from featurestore.errors import UsageError
from featurestore.reader import FeatureStore
from featurestore.storage.files import filesystem
from featurestore.storage.user_outputs import local_path
from sparsemill import main
from tests.featurestore.conftest import BUCKET, S3Server
from tests.featurestore.stores import write_store
from tests.training.stores import SAE, build_store, make_documents

KEY, SECRET = "AKIAWALKING", "TopSecret/1x"
SECRETS = (KEY, SECRET, "TopSecret", SECRET.replace("/", "%2F"))


@pytest.fixture(scope="module")
def where(s3_server: S3Server) -> str:
    return f"endpoint_override={s3_server.host}&scheme=http&region=eu-west-1"


@pytest.fixture
def secret(where: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A prefix in the bucket to which a path and `?{where}` are added."""
    base = f"s3://{KEY}:{SECRET.replace('/', '%2F')}@{BUCKET}/{request.node.name}"
    yield base
    logging.disable(logging.NOTSET)  # which the commands of stage 1 set


def files_below(uri: str) -> dict[str, bytes]:
    fs, root = filesystem(uri)
    found = fs.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    return {info.path: fs.open_input_file(info.path).read() for info in found if info.is_file}


def nowhere(*texts: str | bytes) -> None:
    for text in texts:
        data = text if isinstance(text, bytes) else text.encode()
        for secret in SECRETS:
            assert secret.lower().encode() not in data.lower(), data[:2000]


def run(*argv: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        code = main(argv)
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capfd.readouterr()
    nowhere(out, err)
    return code, out, err


@pytest.mark.parametrize("as_json", [False, True], ids=["page", "json"])
def test_every_command_that_takes_a_url_keeps_its_secret(
    secret: str,
    where: str,
    as_json: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def at(name: str) -> str:
        return f"{secret}{as_json}/{name}?{where}"

    monkeypatch.chdir(tmp_path)
    local = build_store(tmp_path / "store", make_documents(n=60))
    study = {
        "store": local, "label": "label", "features": [{"sae": SAE, "pool": ["max"]}], "bootstrap": 100,
        "split": {"seeds": 1, "folds": 2}, "out": str(tmp_path / "study"),
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    assert run("study", "study.yaml", capfd=capfd)[0] == 0
    model = next(str(path) for path in sorted((tmp_path / "study" / "models").glob("*.json")))
    store = build_store(at("store"), make_documents(n=60))
    write_store(at("several"))
    spec = tmp_path / "bad.yaml"
    spec.write_text(json.dumps({**study, "store": store}))
    job = tmp_path / "job.yaml"
    job.write_text(json.dumps({"corpus": {"path": at("c.jsonl")}, "store": store}))
    endings = {
        0: [
            ["status", store], ["verify", store], ["show", store], ["show", store, "--doc", "doc-1"],
            ["show", store, "--feature", f"{SAE}:17"], ["compact", store, at("compact")],
            ["export", store, at("x.npz")], ["export", store, at("x.svm"), "--format", "svmlight", "--label", "label"],
            ["export", store, str(tmp_path / "x.npz")], ["predict", model, "--store", store],
            ["predict", model, "--store", store, "--out", at("p.csv")],
        ],
        2: [
            *([command, at("nothing")] for command in ("status", "verify", "show")), ["show", store, "--doc", "nobody"],
            ["show", store, "--sae", "nope"], ["show", store, at("more")], ["compact", store, at("several")],
            ["export", store, at("x.npz")], ["export", store, at("x.zarr"), "--format", "anndata"],
            ["export", at("several"), at("y.npz")], ["export", at("x.npz"), at("y.npz")], ["demo", "--out", at("demo")],
            ["predict", model, "--store", at("several")], ["predict", at("model.json"), "--store", store],
            ["predict", model, "--store", store, "--out", at("p.csv")], ["predict", model, "--job", at("job.yaml")],
            ["predict", model, "--store", store, "--out", at("p.pdf")], ["explain", at("model.json")],
            ["study", at("study.yaml")], ["study", str(spec)], ["plan", str(job)], ["extract", at("job.yaml")],
            ["extract", str(job)], ["submit", str(job), "--address", at("")], ["prepare", at("job.yaml")],
            ["status", f"s3://{KEY}:{SECRET}@NoBucket/x"], ["status", f"s3://{KEY}:{SECRET}/x"],
            ["status", f"sftp://{KEY}:{SECRET}@127.0.0.1/x"], ["status", f"file://{KEY}:TopSecret@host/x"],
            ["status", f"{at('store')}&secret={SECRET}"], ["status", at("no-\x00-bucket")], ["verfy", at("x")],
            ["plan", at("job.yaml"), "--rates", at("rates.yaml"), "--hardware", "l4"],
        ],
    }  # fmt: skip
    for expected, commands in endings.items():
        for command in commands:
            code, out, err = run(*command, *(["--json"] if as_json else []), capfd=capfd)
            assert code == expected, (command, out, err)
    left = files_below(f"{secret}{as_json}?{where}") | files_below(str(tmp_path))
    assert any(path.endswith("x.npz.documents.parquet") for path in left)
    nowhere(*(data for path, data in left.items() if path not in (str(spec), str(job))), *left)
    assert not list(tmp_path.glob("s3:*"))


def test_exports_are_written_to_urls_and_are_the_same_files(
    secret: str, where: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = build_store(tmp_path / "store", make_documents(n=40))
    for kind, name in (("npz", "a.npz"), ("svmlight", "a.svm")):
        there, here = f"{secret}/{name}?{where}", str(tmp_path / name)
        for out in (there, here):
            assert run("export", store, out, "--format", kind, capfd=capfd)[0] == 0
        fs, path = filesystem(there)
        assert fs.open_input_file(path).read()[:2] == Path(here).read_bytes()[:2]
        if kind == "npz":
            with fs.open_input_file(path) as file:
                (tmp_path / "back.npz").write_bytes(file.read())
            X = load_npz(tmp_path / "back.npz")
            assert (X != FeatureStore.open(store).matrix(SAE).X).nnz == 0 and X.dtype == np.float32
        else:
            assert fs.open_input_file(path).read() == Path(here).read_bytes()
        with fs.open_input_file(f"{path}.documents.parquet") as file:
            assert pl.read_parquet(file.read())["doc_id"].to_list() == [f"doc-{i}" for i in range(40)]


@pytest.mark.parametrize("place", ["s3://bucket/x", "s3:/bucket/x", "gs://K:S@b/x", "https://h/x"])
def test_what_must_be_a_local_directory_is_never_a_folder_named_like_a_url(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featurestore.storage.cache import cache_path

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARSEMILL_CACHE", place)
    for attempt in (lambda: cache_path("x"), lambda: local_path(place, "the demo")):
        with pytest.raises(UsageError, match=r"is a URL, and .* is written to a local directory"):
            attempt()
    assert local_path("~/x", "it") == Path.home() / "x" and not list(tmp_path.iterdir())
