"""What people write into JOB.yaml and STUDY.yaml: taken as they meant it, or one sentence in their own words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featurestore.errors import UsageError
from ray_jobs.spec import JobSpec, load_job
from training.spec import StudySpec, load_study

JOB = """
corpus: {path: a.jsonl}
model: {name: ./m}
saes: [{path: sae}]
store: out
"""
STUDY = """
store: s
label: label
baselines: [majority]
"""
Load = Callable[[Path], JobSpec | StudySpec]
PYTHON = re.compile(r"\b(True|False|None|Traceback|datetime|tuple|dict|NoneType)\b")


def read(tmp_path: Path, load: Load, text: str | bytes) -> Any:
    path = tmp_path / "spec.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(path)


def refusal(tmp_path: Path, load: Load, text: str | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, load, text)
    said = str(caught.value)
    assert "\n" not in said
    assert not PYTHON.search(said), said
    return said.removeprefix(f"{tmp_path / 'spec.yaml'}: ")


def with_line(base: str, line: str) -> str:
    """The spec with a line put in the place of its key's, or added."""
    key = line.partition(":")[0]
    return "\n".join([*(old for old in base.splitlines() if not old.startswith(f"{key}:")), line])


@pytest.mark.parametrize(
    ("line", "get", "meant"),
    [
        ("split: {column: {name: part, test: [0]}}", lambda s: s.split.column.test, ("0",)),
        ("split: {column: {name: part, test: 1}}", lambda s: s.split.column.test, ("1",)),
        ("split: {column: {name: part, test: [true]}}", lambda s: s.split.column.test, ("true",)),
        ("split: {column: {name: part, test: [True, no]}}", lambda s: s.split.column.test, ("True", "no")),
        ("split: {column: {name: no}}", lambda s: s.split.column.name, "no"),
        ("split: {group: on}", lambda s: s.split.group, "on"),
        ("split: {folds: '5'}", lambda s: s.split.folds, 5),
        ("split: {folds: 010}", lambda s: s.split.folds, 10),
        ("split: {test: 2.5e-1}", lambda s: s.split.test, 0.25),
        ("transfer: {by: year, train: [2020]}", lambda s: s.transfer.train, ("2020",)),
        ("transfer: {by: year, train: 2020}", lambda s: s.transfer.train, ("2020",)),
        ("transfer: {by: code, train: [010, 0x1F, 12:30]}", lambda s: s.transfer.train, ("010", "0x1F", "12:30")),
        (
            "transfer: {by: x, train: [1.50, 1_000, 2020-01-01]}",
            lambda s: s.transfer.train,
            ("1.50", "1_000", "2020-01-01"),
        ),
        ("features: [{sae: a, control: yes}]", lambda s: s.features[0].control, True),
        ("label: yes", lambda s: s.label, "yes"),
        ("label: 2024-05-01", lambda s: s.label, "2024-05-01"),
    ],
)
def test_a_study_takes_words_and_values_as_they_are_written(tmp_path: Path, line: str, get: Any, meant: Any) -> None:
    assert get(read(tmp_path, load_study, with_line(STUDY, line))) == meant


@pytest.mark.parametrize(
    ("line", "get", "meant"),
    [
        ("corpus: {path: a.jsonl, keep: [no, yes, true]}", lambda j: j.corpus.keep, ("no", "yes", "true")),
        ("corpus: {path: a.jsonl, text: off}", lambda j: j.corpus.text, "off"),
        ("model: {name: ./m, chat: yes}", lambda j: j.model.chat, True),
        ("model: {name: ./m, chat: FALSE}", lambda j: j.model.chat, False),
        ("model: {name: ./m, max_tokens: 2_048}", lambda j: j.model.max_tokens, 2048),
        (
            "saes: [{path: sae, name: no, allow_mismatch: on}]",
            lambda j: (j.saes[0].name, j.saes[0].allow_mismatch),
            ("no", True),
        ),
    ],
)
def test_a_job_takes_words_and_values_as_they_are_written(tmp_path: Path, line: str, get: Any, meant: Any) -> None:
    assert get(read(tmp_path, load_job, with_line(JOB, line))) == meant


@pytest.mark.parametrize("spec", [STUDY, JOB])
def test_line_ends_of_windows_and_a_byte_order_mark_do_not_matter(tmp_path: Path, spec: str) -> None:
    load: Load = load_study if spec == STUDY else load_job
    plain = read(tmp_path, load, spec)
    assert read(tmp_path, load, b"\xef\xbb\xbf" + spec.replace("\n", "\r\n").encode()) == plain


@pytest.mark.parametrize(
    ("load", "text", "words"),
    [
        (load_job, STUDY, "is a study, and a job is expected here; give it to `sparsemill study`"),
        (
            load_study,
            JOB,
            "is a job, and a study is expected here; give it to `sparsemill plan`, `extract` or `submit`",
        ),
        (load_job, "hardware: {l4: {per_hour: 1}}", "is a rates file, and a job is expected here"),
        (load_job, '{"format": "sparsemill.store", "fingerprint": "x"}', "is a file that a command wrote"),
        (load_study, "store:out\nlabel:x", "holds a text, but a spec is a mapping of 'key: value' lines, with a space"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_kind(tmp_path: Path, load: Load, text: str, words: str) -> None:
    assert words in refusal(tmp_path, load, text)


VARIABLES = ["$OUT/x", "${OUT}/x", "data/$OUT", "%OUT%/x", "$env:OUT/x", "$(pwd)/x", "`pwd`/x", "s3://$BUCKET/x"]
JOB_PATHS = {
    "corpus.path": "corpus: {{path: '{}'}}",
    "corpus.path.1": "corpus: {{path: [a.jsonl, '{}']}}",
    "model.name": "model: {{name: '{}'}}",
    "saes.0.path": "saes: [{{path: '{}', name: x}}]",
    "workers.rates": "workers: {{rates: '{}'}}",
    "store": "store: '{}'",
}
STUDY_PATHS = {
    "store": "store: '{}'",
    "out": "out: '{}'",
    "label.path": "label: {{path: '{}', id: i, column: c}}",
    "text.path": "text: {{path: '{}', id: i, column: c}}",
    "features.0.store": "features: [{{sae: a, store: '{}'}}]",
}


@pytest.mark.parametrize("path", VARIABLES)
@pytest.mark.parametrize(
    ("load", "base", "key", "line"),
    [(load_job, JOB, *named) for named in JOB_PATHS.items()]
    + [(load_study, STUDY, *named) for named in STUDY_PATHS.items()],
)
def test_a_variable_in_a_path_is_refused_by_name_under_every_key(
    tmp_path: Path, load: Load, base: str, key: str, line: str, path: str
) -> None:
    said = refusal(tmp_path, load, with_line(base, line.format(path)))
    variable = re.search(r"\$\{OUT\}|\$OUT|%OUT%|\$env:OUT|\$\(pwd\)|`pwd`|\$BUCKET", path)
    assert variable is not None
    assert said.startswith(f"'{key}': holds the variable {variable[0]}, and variables are not looked up")


@pytest.mark.parametrize(
    "path", ["a$1.csv", "cost-in-$.csv", "100%.csv", "caf%C3%A9.csv", "s3://b/a%20b%2Fc", "[$]OUT/x"]
)
def test_dollars_and_percent_signs_that_name_no_variable_are_part_of_a_path(tmp_path: Path, path: str) -> None:
    job = read(tmp_path, load_job, with_line(JOB, f"corpus: {{path: '{path}'}}"))
    assert job.corpus.path[0].endswith(path)


def test_the_home_directory_can_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    job = read(tmp_path, load_job, with_line(JOB, "store: ~/out"))
    study = read(tmp_path, load_study, with_line(STUDY, "out: ~/study"))
    assert (job.store, study.out) == ("/home/somebody/out", "/home/somebody/study")
    assert "no user ~nobody-here" in refusal(tmp_path, load_job, with_line(JOB, "store: ~nobody-here/out"))
