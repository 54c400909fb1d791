"""A hostile corpus and wrong jobs of real models: every row kept, every refusal one sentence (more in `mistakes`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsemill
from featurestore import FeatureStore
from tests.ray_jobs.jobs import job_mapping, write_job, write_models
from tests.tiny import tiny_texts

GOOD = [{"id": f"d{row}", "text": text, "label": row % 3} for row, text in enumerate(tiny_texts(24, max_words=30))]
LONG = ("love " * 40_000).strip()  # a line of 200,000 characters
# (before which good row, line, id in the store, error there)
BAD: list[tuple[int, str, str, str | None]] = [
    (0, '{"id": "d', "bad.jsonl:0", "the line is not JSON (Unterminated string starting, column 8)"),
    (2, '{"id": "empty", "text": ""}', "empty", None),
    (2, '{"id": "null", "text": null}', "null", "the text in 'text' is null"),
    (5, json.dumps({"id": "long", "text": LONG}), "long", None),
    (9, '{"id": "lone", "text": "a \\ud800 b"}', "lone", "the text in 'text' holds a lone surrogate"),
    (9, "no JSON at all", "bad.jsonl:14", "the line is not JSON (Expecting value, column 1)"),
    (13, '["a", "list"]', "bad.jsonl:19", "the line is a list, not a JSON object"),
    (13, '{"id": "untold"}', "untold", "the row has no text 'text'"),
    (20, '{"text": "love and hate"}', "bad.jsonl:28", "the row has no id 'id'"),
    (24, '{"id": "number", "text": 5}', "number", "the text in 'text' is a number"),
]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        return self.err.splitlines()[-1]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Models, corpora and jobs `good` and `bad` side by side; one Ray for all runs."""
    from ray_jobs.cluster.session import ray_cluster

    directory = tmp_path_factory.mktemp("ground")
    write_models(directory)
    lines = [json.dumps(row) for row in GOOD]
    write_lines(directory / "good.jsonl", lines)
    for before, line, _, _ in reversed(BAD):
        lines.insert(before, line)
    write_lines(directory / "bad.jsonl", lines)
    write_lines(directory / "twice.jsonl", [json.dumps(row) for row in (*GOOD, *GOOD[:2])])
    with pytest.MonkeyPatch.context() as patch, ray_cluster(None, 1, 0):
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        yield directory


@pytest.fixture
def call(ground: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command; usage errors give their exit code too, and no command may show a traceback."""
    import logging
    import warnings

    def run(*argv: Any) -> Said:
        capsys.readouterr()
        with warnings.catch_warnings():
            try:
                code = sparsemill.main([str(arg) for arg in argv])
            except SystemExit as exit_:
                code = int(str(exit_.code))
        logging.disable(logging.NOTSET)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return Said(code, said.out, said.err)

    return run


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_named_job(ground: Path, corpus: str, name: str, /, **changes: Any) -> Path:
    mapping = job_mapping(ground, ground / f"{corpus}.jsonl", ground / f"{name}-store", **changes)
    return write_job(ground / f"{name}.yaml", mapping)


def test_a_hostile_corpus_goes_the_whole_way_and_loses_no_row(ground: Path, call: Callable[..., Said]) -> None:
    rows, errors = len(GOOD) + len(BAD), sum(error is not None for *_, error in BAD)
    job = write_named_job(ground, "bad", "bad")
    planned = call("plan", job, "--json")
    assert (planned.code, json.loads(planned.out)["documents"]) == (0, rows)

    extracted = call("extract", job, "--json")
    result = json.loads(extracted.out)
    assert (extracted.code, result["documents"], result["errors"], result["units"]) == (0, rows, errors, 2)

    verified = json.loads(call("verify", ground / "bad-store", "--json").out)
    assert (verified["ok"], verified["rows"], verified["errors"]) == (True, rows, errors)
    status = json.loads(call("status", ground / "bad-store", "--json").out)
    assert (status["complete"], status["rows_done"], status["errors"]) == (True, rows, errors)

    documents = FeatureStore.open(str(ground / "bad-store")).documents().collect()
    expected: list[tuple[str, str | None]] = [(str(row["id"]), None) for row in GOOD]
    for before, _, doc_id, error in reversed(BAD):
        expected.insert(before, (doc_id, error))
    assert list(zip(documents["doc_id"], documents["error"], strict=True)) == expected
    by_id = {row["doc_id"]: row for row in documents.to_dicts()}
    assert (by_id["empty"]["n_tokens"], by_id["empty"]["truncated"]) == (0, False)
    assert (by_id["long"]["n_tokens"], by_id["long"]["truncated"]) == (63, True)  # max_tokens 64, less BOS
    assert all(by_id[doc_id]["n_tokens"] == 0 for doc_id, error in expected if error)


@pytest.mark.slow
def test_good_rows_are_what_they_are_without_the_bad_ones(ground: Path, call: Callable[..., Said]) -> None:
    for name in ("good", "bad"):  # `bad` is there already, unless this test runs alone
        assert call("extract", write_named_job(ground, name, name)).code == 0
    good, bad = (FeatureStore.open(str(ground / f"{name}-store")) for name in ("good", "bad"))
    for pool in ("max", "sum", "count"):
        alone, among = good.matrix("tiny", pool=pool), bad.matrix("tiny", pool=pool)
        where = {doc_id: row for row, doc_id in enumerate(among.doc_id)}
        same = among.X[[where[doc_id] for doc_id in alone.doc_id]]
        assert np.array_equal(same.indptr, alone.X.indptr)
        assert np.array_equal(same.indices, alone.X.indices)
        # the rows share batches with others, which moves a last bit, and then the rounding to 8 bits may show it
        np.testing.assert_allclose(same.data, alone.X.data, rtol=2**-7)
    labels = {row["doc_id"]: row["label"] for row in bad.documents().collect().to_dicts()}
    assert all(labels[str(row["id"])] == row["label"] for row in GOOD)


@pytest.mark.parametrize("command", ["plan", "extract"])
@pytest.mark.parametrize(
    ("corpus", "changes", "says"),
    [
        ("twice", {}, "ids must be unique, but there is 'd0' in twice.jsonl:0 and twice.jsonl:24"),
        ("good", {"corpus": {"text": "txet"}}, "has no column 'txet' (corpus.text); did you mean 'text'?"),
        ("good", {"saes": [{"path": "foreign"}]}, "it was trained on gemma-2-9b, the job's model is tiny-gemma2"),
        ("good", {"store": "sae"}, "is not empty and no feature store; choose an empty or new directory"),
        ("good", {"store": "good.jsonl/store"}, "lies below a file; give the path of a directory for the store"),
    ],
)
def test_a_job_that_cannot_be_is_refused_before_anything_is_spent(
    ground: Path, call: Callable[..., Said], command: str, corpus: str, changes: dict[str, Any], says: str
) -> None:
    job = write_named_job(ground, corpus, "refused", **changes)
    said = call(command, job, "--json")
    assert said.code == 2
    assert says in said.sentence
    assert json.loads(said.out) == {
        "version": 1,
        "error": said.sentence.removeprefix("sparsemill: "),
        "exit_code": 2,
    }
    assert "starting Ray" not in said.err
    assert not (ground / "refused-store").exists()


def test_a_path_that_is_not_utf8_is_refused(call: Callable[..., Said]) -> None:
    said = call("status", "store-\udcff")
    assert (said.code, said.sentence) == (2, r"sparsemill: 'store-\udcff': is not UTF-8; rename it")


def test_storage_that_refuses_ends_in_a_sentence(
    ground: Path, call: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    from featurestore.format import store_plan as plan

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plan, "atomic_write", full)
    said = call("extract", write_named_job(ground, "good", "full"))
    assert said.code == 2
    assert "full-store cannot be written (No space left on device); choose another directory" in said.sentence
