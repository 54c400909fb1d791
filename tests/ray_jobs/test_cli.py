"""`prepare`, `plan` and `extract` as a user calls them; runs on a real Ray are in tests/crash."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import sparsemill
from tests.ray_jobs.jobs import job_mapping, write_corpus, write_job, write_models


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    write_corpus(directory / "c.jsonl", 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        yield write_models(directory)


@pytest.fixture
def call(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command on a job with some keys changed."""
    import logging
    import warnings

    def run(*argv: str, **changes: Any) -> Said:
        mapping = job_mapping(models, models / "c.jsonl", tmp_path / "store", **changes)
        job = write_job(tmp_path / "job.yaml", mapping)
        with warnings.catch_warnings():
            code = sparsemill.main([argv[0], str(job), *argv[1:]])
        logging.disable(logging.NOTSET)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


def test_prepare_builds_the_bundle_and_says_what_is_in_it(call: Callable[..., Said]) -> None:
    said = call("prepare")
    assert said.code == 0
    assert Path(said.out.splitlines()[0]).joinpath("bundle.json").is_file()
    assert "layers 0 to 2 of 4, float32" in said.out
    assert "tiny: layer 2, 96 features, jumprelu" in said.out


def test_plan_prints_the_figures_of_a_job_and_writes_no_store(call: Callable[..., Said], tmp_path: Path) -> None:
    said = call("plan")
    assert said.code == 0
    for line in ("60 documents in 1 file", "(mean ", "units      3 (3 to do)", "bytes out  about"):
        assert line in said.out
    assert "hours      unknown" in said.out
    assert not (tmp_path / "store").exists()


def test_plan_prices_a_job_when_it_is_told_the_rate(call: Callable[..., Said]) -> None:
    said = call("plan", "--rate", "1", "--price", "3600")
    tokens = json.loads(call("plan", "--json").out)["tokens"]
    assert "tokens/s a worker, as given" in said.out
    assert f"cost       about {tokens:,.2f}" in said.out


def test_plan_says_how_many_documents_will_be_cut(call: Callable[..., Said]) -> None:
    assert "exceeds 16 and is cut" in call("plan", model={"max_tokens": 16}).out


def test_plan_prices_the_hardware_that_is_named(call: Callable[..., Said], tmp_path: Path) -> None:
    said = call("plan", "--hardware", "cpu-core")
    assert "tokens/s a worker, cpu-core in the rates file" in said.out
    assert "USD (0.05 a worker and hour)" in said.out
    rates = write_job(
        tmp_path / "rates.yaml", {"hardware": {"mine": {"device": "cpu", "tokens_per_second": 1, "per_hour": 2}}}
    )
    facts = json.loads(call("plan", "--json", workers={"hardware": "mine", "rates": str(rates)}).out)
    assert facts["tokens_per_second"] == 1
    assert facts["cost"] == pytest.approx(2 * facts["missing_tokens"] / 3600)
    assert facts["warnings"] == [] or "exceeds" in facts["warnings"][0]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--hardware", "h10"], "did you mean 'h100'"),
        (["--hardware", "h100", "--rates", "/nowhere.yaml"], "/nowhere.yaml: there is no such file"),
        (["--rates", "/nowhere.yaml"], "choose one of them with --hardware"),
        (["--calibrate", "--rate", "5"], "leave one of them out"),
        (["--hardware", "h100"], "workers.gpus: 1"),
    ],
)
def test_pricing_wrongly_gets_one_sentence(call: Callable[..., Said], argv: list[str], says: str) -> None:
    said = call("plan", *argv)
    assert (said.code, said.out) == (2, "")
    assert says in said.err.splitlines()[-1]


def test_plan_with_json_prints_one_document(call: Callable[..., Said]) -> None:
    facts = json.loads(call("plan", "--json").out)
    assert (facts["documents"], facts["units"], facts["finished"]) == (60, 3, False)
    assert facts["bundle"]["hook_layers"] == [2]
    assert facts["compute"]["dtype"] == "float32"
    assert facts["worker_hours"] is None


@pytest.mark.parametrize("command", ["plan", "extract"])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"corpus": {"txet": "text"}}, "did you mean 'text'"),
        ({"corpus": {"text": "txet"}}, "txet"),
        ({"corpus": {"path": "/nowhere.jsonl"}}, "/nowhere.jsonl"),
        ({"saes": [{"path": "foreign", "name": "f"}]}, "gemma-2-9b"),
        ({"pool": ["mean"]}, "derived on reading"),
    ],
)
def test_a_wrong_job_gets_one_sentence_exit_code_two_and_no_store(
    call: Callable[..., Said], models: Path, tmp_path: Path, command: str, changes: dict[str, Any], says: str
) -> None:
    if "saes" in changes:
        changes = {"saes": [{"path": str(models / "foreign"), "name": "f"}]}
    said = call(command, **changes)
    assert said.code == 2
    assert said.out == ""
    assert says in said.err.splitlines()[-1]
    assert "Traceback" not in said.err
    assert not (tmp_path / "store").exists()


def test_a_refusal_with_json_is_a_document_too(call: Callable[..., Said]) -> None:
    said = call("extract", "--json", corpus={"text": "txet"})
    assert said.code == 2
    assert "txet" in json.loads(said.out)["error"]


def test_a_directory_with_other_things_in_it_is_no_place_for_a_store(call: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.docx").write_text("precious", encoding="utf-8")
    said = call("extract")
    assert said.code == 2
    assert "not empty and no feature store" in said.err
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["thesis.docx"]


def test_an_address_where_no_cluster_is_gets_one_sentence(call: Callable[..., Said], tmp_path: Path) -> None:
    said = call("extract", "--address", "127.0.0.1:1")
    assert said.code == 2
    assert "no Ray cluster at 127.0.0.1:1" in said.err.splitlines()[-1]
    assert not (tmp_path / "store" / "parts").exists()


def test_job_yaml_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert sparsemill.main(["extract", "/nowhere/job.yaml"]) == 2
    assert "/nowhere/job.yaml: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--rate", "-1"], ["--price", "nan"]])
def test_figures_must_be_positive(call: Callable[..., Said], argv: list[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        call("plan", *argv)
    assert refusal.value.code == 2


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a directory that nobody can write to, root included")
@pytest.mark.parametrize("command", ["plan", "extract"])
def test_a_store_that_cannot_be_written_is_refused_before_the_bundle_is_built(
    call: Callable[..., Said], command: str
) -> None:
    said = call(command, store="/proc/store")
    assert (said.code, said.out) == (2, "")
    assert said.err.splitlines() == [said.err.strip()]
    assert "/proc/store cannot be written" in said.err


def test_plan_says_what_the_scan_saw_on_the_screen_and_in_json(
    call: Callable[..., Said], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": f"d{i}", "text": "river bread"} for i in range(8)]
    lines = [*map(json.dumps, rows), "broken", json.dumps({"id": "n", "text": None})]
    corpus = tmp_path / "lang=de" / "a.jsonl"
    corpus.parent.mkdir()
    corpus.write_text("\n".join(lines), encoding="utf-8")
    changes: dict[str, Any] = {"corpus": {"path": str(corpus), "keep": []}}
    said = call("plan", **changes)
    warning = "2 of 10 documents (20.0%) cannot be read and get an error instead of features (a.jsonl: 1 such as row 8"
    note = "the directories of the corpus tell lang (1 value); corpus.keep can name them"
    assert f"warning    {warning}" in said.out
    assert f"note       {note}" in said.out
    facts = json.loads(call("plan", "--json", **changes).out)
    assert facts["warnings"][0].startswith(warning)
    assert facts["notes"] == [note]
    assert (facts["unreadable"]["rows"], facts["unreadable"]["share"]) == (2, 0.2)
    assert [(one["row"], one["count"], one["file"]) for one in facts["unreadable"]["by_file"]] == [
        (8, 1, "a.jsonl"),
        (9, 1, "a.jsonl"),
    ]


def test_plan_has_no_figure_that_is_a_power_of_ten(call: Callable[..., Said]) -> None:
    said = call("plan", "--rate", "1e12", "--price", "1e-9")
    assert "hours      under a second of one worker" in said.out
    assert "cost       under 0.01 (under 0.01 a worker and hour)" in said.out
    assert not re.search(r"\de-\d|\b0\.0 ", said.out)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("docs.json", "[\n" + ",\n".join(f'{{"text": "doc {i}"}}' for i in range(50)) + "\n]\n", "50 documents"),
        ("one-line.json", json.dumps([{"text": f"doc {i}"} for i in range(50)]), "50 documents"),
        ("bom.json", "\ufeff" + json.dumps([{"text": f"doc {i}"} for i in range(50)], indent=2), "50 documents"),
    ],
)
def test_plan_reads_an_array_of_objects(
    call: Callable[..., Said], tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    said = call("plan", corpus={"path": str(tmp_path / name), "id": None, "keep": []})
    assert said.code == 0
    assert words in said.out
    assert "warning" not in said.out
