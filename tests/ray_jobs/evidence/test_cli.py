"""`sparsemill tokens`: a page, a JSON document, and one sentence for every mistake."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sparsemill
from featurestore import FeatureStore
from featurestore.base.hostile_text import columns
from tests.ray_jobs.evidence.stores import extracted, strongest


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run a command: exit code, stdout, stderr."""

    def run(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = sparsemill.main(list(argv))
        except SystemExit as stop:
            code = int(str(stop.code))
        said = capsys.readouterr()
        return code, said.out, said.err

    yield run
    logging.disable(logging.NOTSET)


def test_a_page_shows_the_tokens_that_fire(store: FeatureStore, call: Callable[..., tuple[int, str, str]]) -> None:
    (doc_id, features), *_ = strongest(store, 1, 3).items()
    code, out, err = call("tokens", store.uri, "--doc", doc_id)
    assert (code, err) == (0, "")
    assert out.startswith(f"{doc_id}  ") and "\x1b" not in out
    for _, feature in features:
        assert f"tiny:{feature}  fires on" in out
    assert all(sum(map(columns, line)) <= 120 for line in out.splitlines())


def test_json_has_the_promised_shape(store: FeatureStore, call: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = call(
        "tokens", store.uri, "--doc", "d0", "--doc", "d1", "--feature", "tiny:7", "--feature", "3", "--json"
    )
    document = json.loads(out)
    assert code == 0 and document["version"] == 1
    assert [one["doc_id"] for one in document["documents"]] == ["d0", "d1"]
    for one in document["documents"]:
        assert set(one) == {"doc_id", "tokens", "features"}
        assert {tuple(token) for token in one["tokens"]} == {("text", "start", "stop", "pooled")}
        assert [(f["sae"], f["feature"]) for f in one["features"]] == [("tiny", 7), ("tiny", 3)]
        assert all(len(f["values"]) == len(one["tokens"]) for f in one["features"])
        assert all(set(f) == {"sae", "feature", "values", "max", "sum"} for f in one["features"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--doc is missing"),
        (["--doc", "nobody"], "no document 'nobody'"),
        (["--doc", "d0", "--feature", "other:1"], "no SAE 'other' in this store; it holds: tiny"),
        (["--doc", "d0", "--feature", "tiny:96"], "SAE 'tiny' has no feature 96; it has features 0 to 95"),
        (["--doc", "d0", "--feature", "tiny:x"], "must be a feature's number, or SAE:NUMBER, not 'tiny:x'"),
        (["--doc", "d9"], "document 'd9' failed when the store was made"),
    ],
)
def test_a_mistake_is_one_sentence(
    store: FeatureStore, call: Callable[..., tuple[int, str, str]], arguments: list[str], sentence: str
) -> None:
    code, out, err = call("tokens", store.uri, *arguments)
    assert code == 2 and out == ""
    assert sentence in err.splitlines()[-1]


def test_no_store_no_text_and_no_bundle_are_one_sentence_each(
    models: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is not a feature store" in call("tokens", str(tmp_path / "nowhere"), "--doc", "d0")[2]
    corpus = tmp_path / "c.jsonl"
    shutil.copy(models / "c.jsonl", corpus)
    copied = tmp_path / "models"
    for name in ("tiny-gemma2", "sae"):
        shutil.copytree(models / name, copied / name)
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    extracted(copied, corpus, tmp_path / "store")
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(copied)
    code, _, err = call("tokens", str(tmp_path / "store"), "--doc", "d0")
    assert code == 2 and "cannot be built again" in err and len(err.splitlines()) == 1
    corpus.unlink()
    code, _, err = call("tokens", str(tmp_path / "store"), "--doc", "d0")
    assert code == 2 and "does not keep the text of its documents" in err and len(err.splitlines()) == 1
