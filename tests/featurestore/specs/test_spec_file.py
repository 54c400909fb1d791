"""A wrong spec file gets one sentence that names the file, the key and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from featurestore.errors import JobSpecError
from featurestore.specs.spec_file import load_spec, parse_spec


class Corpus(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str | list[str]
    text: str = "text"
    format: Literal["csv", "jsonl"] | None = None


class Sae(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    layer: int | None = None


class Job(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    corpus: Corpus
    saes: tuple[Sae, ...] = ()
    workers: int = Field(default=1, ge=1)
    pool: tuple[str, ...] = ("max",)

    @field_validator("pool")
    @classmethod
    def known(cls, pool: tuple[str, ...]) -> tuple[str, ...]:
        if "mean" in pool:
            raise ValueError("'mean' is derived when reading; store 'sum'")
        return pool


def load(tmp_path: Path, text: str | bytes) -> Job:
    path = tmp_path / "job.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_spec(path, Job, JobSpecError)


def refusal(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(JobSpecError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(tmp_path / "job.yaml"))
    return message


def test_a_valid_file_becomes_a_frozen_model(tmp_path: Path) -> None:
    job = load(tmp_path, "corpus: {path: [a, b], format: csv}\nsaes:\n  - {name: x, layer: 9}\n")
    assert job == Job(corpus=Corpus(path=["a", "b"], format="csv"), saes=(Sae(name="x", layer=9),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("corpus: {path: a, txet: b}", "unknown key 'corpus.txet'; did you mean 'text'? (valid: path, text, format)"),
        ("corpus: {path: a}\nsaes: [{name: x}, {nmae: y}]", "unknown key 'saes.1.nmae'; did you mean 'name'?"),
        ("corpus: {path: a}\nstore: x", "unknown key 'store' (valid: corpus, saes, workers, pool)"),
        ("saes: []", "key 'corpus' is missing; add it"),
        ("corpus: {path: a}\nworkers: 0", "'workers': input should be greater than or equal to 1, not 0"),
        ("corpus: {path: a}\nworkers: many", "'workers': input should be a valid integer"),
        ("corpus: {path: 3}", "'corpus.path': input should be a valid string"),
        ("corpus: a.jsonl", "'corpus' must be a mapping of 'key: value' lines, not 'a.jsonl'"),
        ("corpus: {path: a}\nsaes: {name: x}", "'saes' must be a list, [a, b] or one '- a' a line, not {name: 'x'}"),
        ("corpus: {path: a}\npool: [mean]", "'pool': 'mean' is derived when reading; store 'sum'"),
        ("corpus: {path: a, path: b}", "line 1: key 'path' is given twice; remove one"),
        ("corpus: &a {path: a}\nsaes: *a", "line 1: anchors and aliases are refused; write the value out"),
        ("corpus:\n  <<: {path: a}", "line 2: a key must be plain text"),
        ("1: a", "line 1: a key must be plain text"),
        ("corpus: [", "line 1, column 10: not valid YAML"),
        ("corpus: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("corpus: {path: 2025-13-45}", "line 1: 2025-13-45 is no day of the calendar"),
        ("", "is empty, but a spec is a mapping"),
        ("- a", "holds a list, but a spec is a mapping"),
        ("just text", "holds a text, but a spec is a mapping"),
        (b"corpus: \xff\xfe", "is not UTF-8 text"),
        ("[" * 3_000, "nested too deeply"),
        ("a: " + "x" * 1_000_001, "is larger than 1,000,000 bytes"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobSpecError, match=r"nothing\.yaml: there is no such file"):
        load_spec(tmp_path / "nothing.yaml", Job, JobSpecError)


def test_a_directory_is_no_spec(tmp_path: Path) -> None:
    with pytest.raises(JobSpecError, match="cannot be read"):
        load_spec(tmp_path, Job, JobSpecError)


def test_several_problems_are_counted_and_an_unknown_key_comes_first() -> None:
    with pytest.raises(JobSpecError, match=r"unknown key 'korpus'; did you mean 'corpus'\?.*\(1 more like this\)"):
        parse_spec({"korpus": {"path": "a"}, "nothing": 1}, Job, JobSpecError, where="job.yaml")
    with pytest.raises(JobSpecError, match=r"unknown key 'korpus'; did you mean 'corpus'\?[^)]*\)$"):
        parse_spec({"korpus": {"path": "a"}}, Job, JobSpecError, where="job.yaml")  # 'corpus' is missing for that


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    assert load(tmp_path, b"\xef\xbb\xbfcorpus: {path: a}").corpus.path == "a"


@pytest.mark.parametrize(
    ("mapping", "key"),
    [
        ({"corpus": {"path": "s3://AKIA:verysecret@bucket/x"}}, "corpus.path"),
        ({"corpus": {"path": ["a.csv", "https://host/x?X-Amz-Signature=verysecret"]}}, "corpus.path.1"),
        ({"corpus": {"path": "x"}, "saes": [{"name": "https://verysecret@host/x"}]}, "saes.0.name"),
        ({"unknown": {"x": "s3://a:verysecret@b"}}, "unknown.x"),
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(mapping: dict[str, object], key: str) -> None:
    with pytest.raises(JobSpecError) as refusal:
        parse_spec(mapping, Job, JobSpecError, "job.yaml")
    assert str(refusal.value).startswith(f"job.yaml: the URL in '{key}' carries")
    assert "environment" in str(refusal.value)
    assert "verysecret" not in str(refusal.value)
