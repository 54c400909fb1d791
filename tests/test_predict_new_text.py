"""New text for a trained model: what a job would give is known from its bundle, before its corpus is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from featurestore.errors import StudyError
from featurestore.format.store_plan import StorePlan
from featurestore.models.compatibility import Caution, check_store
from ray_jobs.planning.job_plan import expected_store, make_plan
from tests.ray_jobs.jobs import make_job, write_corpus, write_models
from tests.tiny import tiny_gemma2, tiny_sae


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        write_corpus(directory / "c.jsonl", 30)
        yield write_models(directory)


def expected(models: Path, **changes: Any) -> StorePlan:
    return expected_store(make_job(models, models / "none.jsonl", models / "store", **changes))


@pytest.fixture(scope="module")
def header(models: Path) -> dict[str, Any]:
    """Of a model that was trained on a store of the plain job."""
    trained_on = {"identity": expected(models).identity, "d_sae": {"tiny": 96}}
    return {"saes": ["tiny"], "pool": "sum", "dense": None, "trained_on": trained_on}


def cautions(header: dict[str, Any], plan: StorePlan) -> list[str]:
    found: tuple[Caution, ...] = check_store(header, plan, "STORE")
    return [caution.sentence for caution in found]


def test_what_is_expected_is_what_the_store_will_say_but_for_its_corpus(models: Path) -> None:
    job = make_job(models, models / "c.jsonl", models / "store")
    before, then = expected_store(job), make_plan(job).store
    assert {**before.identity, "corpus": None} == {**then.identity, "corpus": None}
    assert (before.schema.saes, before.schema.dense) == (then.schema.saes, then.schema.dense)
    assert before.spec == then.spec
    assert before.extra["hub"] == then.extra["hub"]


def test_the_same_encoder_is_accepted_wherever_it_lies(models: Path, header: dict[str, Any], tmp_path: Path) -> None:
    tiny_sae(tmp_path / "copy")
    saes = [
        {"path": str(tmp_path / "copy"), "name": "tiny"},
        {"path": str(models / "sae"), "name": "second", "layer": 2},
    ]
    assert cautions(header, expected(models, saes=saes)) == []


def test_another_encoder_of_the_same_name_and_shape_is_refused(
    models: Path, header: dict[str, Any], tmp_path: Path
) -> None:
    tiny_sae(tmp_path / "sae", seed=5)
    plan = expected(models, saes=[{"path": str(tmp_path / "sae"), "name": "tiny"}])
    with pytest.raises(
        StudyError, match=r"STORE: its SAE 'tiny' is not the one that this model was trained on \(sha256"
    ):
        check_store(header, plan, "STORE")


def test_another_checkpoint_of_the_same_name_is_refused(models: Path, header: dict[str, Any], tmp_path: Path) -> None:
    other = tiny_gemma2(tmp_path, seed=5)
    with pytest.raises(
        StudyError, match=r"STORE: was made with other weights of tiny-gemma2 than this model was trained"
    ):
        check_store(header, expected(models, model={"name": str(other)}), "STORE")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": {"max_tokens": 32}}, "documents of more than 31 tokens can have other features"),
        ({"model": {"long_documents": "windows", "stride": 8}}, "documents of more than 63 tokens"),
        ({"model": {"dtype": "bfloat16"}}, "the features of every document can differ by rounding"),
        ({"value_bits": 24}, "the features of every document can differ by rounding"),
    ],
)
def test_settings_that_some_documents_or_roundings_feel_are_said(
    models: Path, header: dict[str, Any], changes: dict[str, Any], sentence: str
) -> None:
    (said,) = cautions(header, expected(models, **changes))
    assert sentence in said


@pytest.mark.parametrize("changes", [{"model": {"tokens": "all"}}, {"model": {"chat": True}}, {"pool": ["max"]}])
def test_settings_that_every_document_feels_are_refused(
    models: Path, header: dict[str, Any], changes: dict[str, Any]
) -> None:
    with pytest.raises(StudyError):
        check_store(header, expected(models, **changes), "STORE")
