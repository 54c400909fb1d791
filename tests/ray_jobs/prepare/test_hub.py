"""The real hub client against a hub on loopback: one commit, recorded; asked once a node; no pickles, no secrets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from featurestore.format.store_plan import read_plan
from ray_jobs.backbone.bundle import open_bundle
from tests.hub import FIRST, SECOND, Hub, serve_hub
from tests.ray_jobs.jobs import job_mapping, write_corpus, write_job, write_models

ROOT = Path(__file__).parents[3]
TOKEN, AWS_KEY = "hf_mostsecretmostsecretmostsecretmo", "aws-most-secret-key"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_models(tmp_path_factory.mktemp("sources"))
    (directory / "saes").mkdir()
    (directory / "sae").rename(directory / "saes" / "layer2")
    (directory / "pickled").mkdir()
    (directory / "pickled" / "weights.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    write_corpus(directory / "c.jsonl", 60)
    return directory


@pytest.fixture
def hub(sources: Path) -> Iterator[Hub]:
    with serve_hub({"tiny/tiny-gemma2": sources / "tiny-gemma2", "tiny/saes": sources / "saes"}) as serving:
        yield serving


def hub_job(sources: Path, store: Path) -> dict[str, object]:
    mapping = job_mapping(sources, sources / "c.jsonl", store, model={"name": "tiny/tiny-gemma2"})
    return {**mapping, "saes": [{"release": "tiny/saes", "id": "layer2", "name": "tiny"}]}


def environment(hub: Hub, node: Path) -> dict[str, str]:
    """A machine of its own: its caches are in `node`."""
    return {
        **os.environ,
        "AWS_SECRET_ACCESS_KEY": AWS_KEY,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(node / "hf"),
        "HF_TOKEN": TOKEN,
        "SPARSEMILL_CACHE": str(node / "cache"),
    }


def start(env: dict[str, str], cwd: Path, *argv: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sparsemill", *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=cwd)


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert TOKEN not in out + err
    return out


def assert_no_secret_in(directory: Path) -> None:
    """The secrets are in the environment of every process, and in no file that they leave: job, bundle, store, logs."""
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    for path in files:
        data = path.read_bytes()
        assert TOKEN.encode() not in data, path
        assert AWS_KEY.encode() not in data, path


@pytest.mark.slow
def test_actors_of_one_node_ask_the_hub_once_and_offline_ones_not_at_all(
    hub: Hub, sources: Path, tmp_path: Path
) -> None:
    job = str(write_job(tmp_path / "job.yaml", hub_job(sources, tmp_path / "store")))
    env = environment(hub, tmp_path / "node")
    at_once = [start(env, tmp_path, "prepare", job, "--json") for _ in range(2)]
    found = [json.loads(finish(process)) for process in at_once]
    assert found[0]["bundle"] == found[1]["bundle"]
    assert len(hub.downloads("/model.safetensors")) == 1
    assert len(hub.downloads("/sae_weights.safetensors")) == 1
    bundle = open_bundle(found[0]["bundle"])
    assert bundle.model.revision == FIRST
    assert bundle.saes[0].source["revision"] == FIRST
    assert hub.tokens == {TOKEN}  # the hub's own client sent it, from the environment
    assert_no_secret_in(tmp_path)

    # what a worker gets: the commits instead of branches; everything is there, so nobody is asked
    asked = len(hub.requests)
    mapping = hub_job(sources, tmp_path / "store")
    mapping["model"] = {**mapping["model"], "revision": FIRST}  # type: ignore[dict-item]
    mapping["saes"] = [{**mapping["saes"][0], "revision": FIRST}]  # type: ignore[index]
    pinned = str(write_job(tmp_path / "pinned.yaml", mapping))
    assert json.loads(finish(start(env, tmp_path, "prepare", pinned, "--json")))["sha256"] == found[0]["sha256"]
    assert len(hub.requests) == asked


@pytest.mark.slow
def test_a_store_records_its_commits_and_a_run_on_another_machine_resumes_at_them(
    hub: Hub, sources: Path, tmp_path: Path
) -> None:
    job = str(write_job(tmp_path / "job.yaml", hub_job(sources, tmp_path / "store")))
    ray_files = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: it holds sockets
    try:
        finish(start({**environment(hub, tmp_path / "one"), "RAY_TMPDIR": str(ray_files)}, tmp_path, "extract", job))
        assert list(ray_files.rglob("raylet.out")), "Ray's logs are not where this test looks"
        assert_no_secret_in(ray_files)
    finally:
        shutil.rmtree(ray_files, ignore_errors=True)
    assert_no_secret_in(tmp_path)
    plan = read_plan(str(tmp_path / "store"))
    assert plan.extra["hub"] == {"model": FIRST, "saes": {"tiny": FIRST}}
    (tmp_path / "store" / "parts" / "part-000001.parquet").unlink()
    hub.main = SECOND  # the authors pushed to main
    hub.requests.clear()
    result = json.loads(finish(start(environment(hub, tmp_path / "two"), tmp_path, "extract", job, "--json")))
    assert (result["units_run"], result["documents"]) == (1, 60)
    assert any(FIRST in request for request in hub.requests)
    assert not any(SECOND in request for request in hub.requests)


def test_pickled_weights_of_a_release_are_refused_before_they_are_fetched(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sae_lens.loading import pretrained_sae_loaders as loaders

    from featurestore.errors import BundleError
    from ray_jobs.prepare.hub import pinned_downloads

    before = loaders.hf_hub_download
    with pinned_downloads(FIRST) as commits, pytest.raises(BundleError, match=r"weights\.pt, a pickle.*safetensors"):
        loaders.hf_hub_download(repo_id="tiny/pickled", filename="weights.pt")
    assert commits == {}
    assert loaders.hf_hub_download is before


def test_a_revision_belongs_to_a_release_and_not_to_a_path(tmp_path: Path) -> None:
    from featurestore.errors import JobSpecError
    from ray_jobs.spec import load_job

    mapping = job_mapping(tmp_path, tmp_path / "c.jsonl", tmp_path / "store")
    mapping["saes"][0]["revision"] = "main"
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    with pytest.raises(JobSpecError, match="revision is of a release on the hub"):
        load_job(path)


@pytest.fixture
def client(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub's library in this process, asking the hub on loopback."""
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    return hub


def refusal(sources: Path, tmp_path: Path, **changes: object) -> str:
    """The sentence with which a job of the hub's models is refused."""
    from featurestore.errors import BundleError
    from ray_jobs.prepare.build import prepare
    from ray_jobs.spec import job_from_mapping

    with pytest.raises(BundleError) as caught:
        prepare(job_from_mapping({**hub_job(sources, tmp_path / "s"), **changes}, tmp_path), tmp_path / "cache")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def of_hub(release: str, id: str) -> dict[str, object]:
    return {"saes": [{"release": release, "id": id, "name": "tiny"}]}


def test_a_hub_that_says_no_was_reached(client: Hub, sources: Path, tmp_path: Path) -> None:
    """A model or SAE that is not there is no matter of the network."""
    model = refusal(sources, tmp_path, model={"name": "tiny/none", "dtype": "float32"})
    assert model.startswith("model tiny/none (revision main) could not be fetched: the Hugging Face hub answered 404 (")
    assert "check name, revision and access (HF_TOKEN), or give a local directory or GGUF file" in model
    release = refusal(sources, tmp_path, **of_hub("tiny/none", "layer2"))
    assert "release 'tiny/none', id 'layer2' could not be fetched: the Hugging Face hub answered 404 (" in release
    id = refusal(sources, tmp_path, **of_hub("tiny/saes", "layer3"))
    assert "could not be fetched: its repository on the Hugging Face hub has no such file (" in id
    client.refused["tiny/tiny-gemma2"] = (403, "GatedRepo")
    gated = refusal(sources, tmp_path)
    assert "could not be fetched: the Hugging Face hub gives it to those who accepted its terms (" in gated
    client.refused["tiny/tiny-gemma2"] = (503, "")
    assert "could not be fetched: the Hugging Face hub answered 503 (" in refusal(sources, tmp_path)
    for said in (model, release, id, gated):
        assert "could not be reached" not in said


def test_a_hub_that_does_not_answer_was_not_reached(
    client: Hub, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    said = refusal(sources, tmp_path)
    assert "could not be fetched: the Hugging Face hub could not be reached (" in said
    assert client.requests == []


def test_weights_are_not_asked_for_where_the_config_is_refused(client: Hub, sources: Path, tmp_path: Path) -> None:
    said = refusal(sources, tmp_path, saes=[{"release": "tiny/saes", "id": "layer2", "name": "t", "layer": 1}])
    assert "it reads layer 2 (blocks.2.hook_resid_post), the job says layer 1" in said
    assert client.downloads("cfg.json") and not client.downloads("sae_weights.safetensors")


def test_what_answers_by_another_library_than_the_hubs_was_reached_too() -> None:
    """sae-lens reads the shapes of Gemma Scope 2 with requests."""
    import requests

    from ray_jobs.prepare.hub import why_not_fetched

    answer = requests.Response()
    answer.status_code = 404
    error = requests.HTTPError("404 Client Error", response=answer)
    assert str(why_not_fetched(error)).startswith("the Hugging Face hub answered 404 (")
    away = why_not_fetched(requests.ConnectionError("refused"))
    assert str(away).startswith("the Hugging Face hub could not be reached (")
    assert str(why_not_fetched(OSError(28, "No space left on device", "/cache"))).startswith("No space left on device")
    assert why_not_fetched(ValueError("something else")) is None
