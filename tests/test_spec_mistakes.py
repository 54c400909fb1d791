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
    ("line", "words"),
    [
        # keys at the wrong level, in the singular or plural, misspelt
        ("seeds: 3", "unknown key 'seeds'; it belongs under 'split'"),
        ("seed: 3", "did you mean 'seeds', which belongs under 'split'?"),
        ("test: 0.2", "it belongs under 'split'"),
        ("pool: max", "it belongs under 'features'"),
        ("train: [en]", "it belongs under 'transfer'"),
        ("train_sizes: [8]", "it belongs under 'regimes'"),
        ("split: {store: x}", "it belongs at the top level"),
        ("features: [{sae: a, folds: 3}]", "'features.0.folds'; it belongs under 'split'"),
        ("features: [{sea: a}]", "did you mean 'sae'?"),
        ("feature: [{sae: a}]", "did you mean 'features'?"),
        ("labels: label", "did you mean 'label'?"),
        ("split: {test_size: 0.2}", "did you mean 'test'?"),
        # shares
        (
            "split: {test: 20}",
            "'split.test': input should be less than or equal to 0.5, not 20; it is a fraction, and 20",
        ),
        ("split: {test: 20%}", "it is a fraction, and 20% are 0.2"),
        ("split: {test: '20'}", "it is a fraction, and 20 percent are 0.2"),
        ("regimes: {label_noise: [10]}", "'regimes.label_noise.0'"),
        ("regimes: {label_noise: [10]}", "10 percent are 0.1"),
        # values of the wrong kind
        ("split: {folds: many}", "'split.folds': input should be a valid integer, not 'many'"),
        ("split: {folds: 2.5}", "'split.folds': input should be a valid integer, not 2.5"),
        ("split: {folds: true}", "not 'true'"),
        ("split: {seeds: [0, 1]}", "'split.seeds': input should be a valid integer, not [0, 1]"),
        ("split: {folds: }", "'split.folds' has no value; write one behind the colon"),
        ("split: {column: part}", "write column: {name: 'part'}"),
        ("split: {column: {name: part, test: []}}", "'split.column.test': is empty; name at least one"),
        ("split: {column: {name: part, test: [null]}}", "'split.column.test.0' has no value"),
        ("split: 0.2", "'split' must be a mapping of 'key: value' lines, not 0.2"),
        ("transfer: lang", "write transfer: {by: 'lang'}"),
        ("transfer: {by: lang, train: []}", "'transfer.train': is empty; name at least one"),
        ("features: a", "'features' must be a list"),
        ("features: [a]", "write {sae: 'a'}"),
        ("features: [{sae: a, select: 64}]", "write select: {k: 64}"),
        ("features: [{sae: a, binarize: some}]", "input should be a valid number or 'learnt', not 'some'"),
        ("features: [{sae: a, control: maybe}]", "'features.0.control' must be true or false, not 'maybe'"),
        ("label: 5", "'label': input should be a valid string, not 5; put quotes around it"),
        ("label:", "'label' has no value"),
        ("screen: no", "'screen': input should be a valid integer, not 'no'"),
        # YAML
        ("\tscreen: 5", "it is a tab; YAML is indented with spaces"),
        ("label: {path: *.csv, id: i, column: c}", "put quotes around the value"),
        ("label: @x", "put quotes around the value"),
        ("label: a: b", "put quotes around a value that holds ': '"),
        ('label: {path: "C:\\data.csv", id: i, column: c}', "write paths with / or between single quotes"),
        ("label: 'x", "close the quote"),
        ("---\nlabel: x", "keep one of the parts that --- separates"),
        ("split: {test: 0.2, folds: 1,000}", "remove the comma before it from a number"),
        ("no: x", "a key must be plain text; put quotes around it"),
    ],
)
def test_a_mistake_in_a_study_is_one_sentence_in_the_words_of_the_file(tmp_path: Path, line: str, words: str) -> None:
    assert words in refusal(tmp_path, load_study, with_line(STUDY, line))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("text: body", "unknown key 'text'; it belongs under 'corpus'"),
        ("keep: [label]", "it belongs under 'corpus'"),
        ("max_tokens: 512", "it belongs under 'model'"),
        ("gpus: 1", "it belongs under 'workers'"),
        ("pools: [max]", "did you mean 'pool'?"),
        ("sae: {path: x}", "did you mean 'saes'?"),
        ("layers: 3", "did you mean 'layer', which belongs under 'saes'?"),
        ("workers: {gpu: 1}", "did you mean 'gpus'?"),
        ("workers: 4", "'workers' must be a mapping"),
        ("model: gpt2", "'model' must be a mapping of 'key: value' lines, not 'gpt2'; write model: {name: 'gpt2'}"),
        ("corpus: a.jsonl", "write corpus: {path: 'a.jsonl'}"),
        ("saes: {path: x}", "'saes': must be a list"),
        (
            "corpus: {path: a.jsonl, keep: [2020]}",
            "'corpus.keep.0': input should be a valid string, not 2020; put quotes",
        ),
        ("corpus: {path: a.jsonl, keep: }", "'corpus.keep' has no value"),
        ("corpus: {path: a.jsonl, keep: [null]}", "'corpus.keep.0' has no value"),
        ("corpus: {path: }", "'corpus.path' has no value"),
        ("model: {name: ./m, max_tokens: '512'}", "not '512'; remove the quotes"),
        ("model: {name: ./m, max_tokens: 1k}", "'model.max_tokens': input should be a valid integer, not '1k'"),
        ("model: {name: ./m, max_tokens: yes}", "not 'yes'"),
        ("model: {name: ./m, chat: 1}", "'model.chat' must be true or false, not 1"),
        ("hidden: on", "'hidden': input should be 'mean' or 'last', not 'on'"),
        ("units: 500", "'units' must be a mapping"),
        ("workers: {gpus: 50%}", "it is a fraction, and 50% are 0.5"),
    ],
)
def test_a_mistake_in_a_job_is_one_sentence_in_the_words_of_the_file(tmp_path: Path, line: str, words: str) -> None:
    assert words in refusal(tmp_path, load_job, with_line(JOB, line))


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
