"""What an earlier version wrote: finished stores, studies and models are used as before, an unfinished store is named.

`tests/earlier` was written as `tests/earlier/make.py` says; its checkpoint and SAE are made again from their seed.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

import sparsemill
from featurestore import FeatureStore
from ray_jobs.planning.identity import deciding_software
from tests.tiny import tiny_gemma2, tiny_sae

EARLIER = Path(__file__).parent / "earlier"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    tiny_gemma2(directory)
    tiny_sae(directory / "sae")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        yield directory


@pytest.fixture
def ground(tmp_path: Path, models: Path) -> Path:
    """A copy of everything, with the checkpoint and the SAE beside it again."""
    ground = Path(shutil.copytree(EARLIER, tmp_path / "earlier"))
    for name in ("tiny-gemma2", "sae"):
        (ground / name).symlink_to(models / name)
    return ground


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*argv: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = sparsemill.main([str(arg) for arg in argv])
        logging.disable(logging.NOTSET)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out, said.err

    return run


def change_job(path: Path, **changes: Any) -> Path:
    job = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**job, **changes}), encoding="utf-8")
    return path


def same_software() -> bool:
    recorded = json.loads((EARLIER / "finished/store.json").read_text(encoding="utf-8"))["identity"]["software"]
    here = deciding_software()
    return all(here[name] == recorded[name] for name in ("torch", "transformers", "tokenizers"))


def test_an_unfinished_store_is_refused_by_the_name_of_what_reads_differently(
    ground: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    before = sorted((ground / "unfinished").rglob("*"))
    code, _, err = call("extract", ground / "unfinished.yaml")
    assert code == 2
    assert "unfinished was begun by an earlier version, which reads corpora differently (reading 1, here 2)" in err
    assert "finish it with the version that began it, or give the job another store" in err
    assert len(err.splitlines()) == 1
    assert sorted((ground / "unfinished").rglob("*")) == before


def test_a_finished_store_that_lost_a_part_counts_as_unfinished(
    ground: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    (ground / "finished/parts/part-000001.parquet").unlink()
    code, _, err = call("extract", ground / "finished.yaml")
    assert (code, "was begun by an earlier version" in err) == (2, True)


@pytest.mark.skipif(not same_software(), reason="other versions of torch, transformers or tokenizers are another job")
def test_the_job_of_a_finished_store_says_that_it_is_finished_and_writes_nothing(
    ground: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    before = {path: path.read_bytes() for path in (ground / "finished").rglob("*") if path.is_file()}
    code, out, err = call("extract", ground / "finished.yaml")
    assert code == 0, err
    assert "finished was finished by an earlier version, which reads corpora differently (reading 1, here 2)" in err
    assert "nothing to do, the whole store is there (3 parts)" in out
    assert {path: path.read_bytes() for path in (ground / "finished").rglob("*") if path.is_file()} == before
    code, out, _ = call("plan", ground / "finished.yaml", "--json")
    assert (code, json.loads(out)["finished"], json.loads(out)["missing_units"]) == (0, True, 0)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"pool": ["max"]}, r"pool ['max', 'sum'] -> ['max']; choose"),
        ({"value_bits": 24}, "value_bits 8 -> 24; choose"),
        ({"units": {"documents": 30}}, "units of 20 -> 30; choose"),
    ],
)
@pytest.mark.skipif(not same_software(), reason="other versions of torch, transformers or tokenizers are another job")
def test_another_job_on_a_finished_store_is_refused_with_what_the_user_changed_and_nothing_else(
    ground: Path, call: Callable[..., tuple[int, str, str]], changes: dict[str, Any], difference: str
) -> None:
    code, _, err = call("extract", change_job(ground / "finished.yaml", **changes))
    assert code == 2
    assert f"was written by another job: {difference}" in err.splitlines()[-1]


@pytest.mark.skipif(not same_software(), reason="other versions of torch, transformers or tokenizers are another job")
def test_a_finished_store_of_another_sae_or_corpus_is_refused(
    ground: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    tiny_sae(tmp_path / "other", seed=5)
    job = change_job(ground / "finished.yaml", saes=[{"path": str(tmp_path / "other"), "name": "tiny"}])
    code, _, err = call("extract", job)
    assert (code, "another job: bundle" in err.splitlines()[-1]) == (2, True)
    corpus = ground / "corpus.jsonl"
    corpus.write_text(corpus.read_text(encoding="utf-8").replace("river", "rivers"), encoding="utf-8")
    code, _, err = call("extract", change_job(job, saes=[{"path": "sae", "name": "tiny"}]))
    assert (code, "another job: corpus.files" in err.splitlines()[-1]) == (2, True)


def test_a_finished_store_verifies_and_shows(ground: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    assert call("verify", ground / "finished")[0] == 0
    assert call("verify", ground / "unfinished", "--quick")[0] == 1
    code, out, _ = call("show", ground / "finished", "--doc", "d007")
    assert (code, "tiny:" in out) == (0, True)
    assert len(FeatureStore.open(str(ground / "finished"))) == 60


@pytest.mark.parametrize("model", ["study/models/sae", "study/models/baseline", "study-tree/models/sae"])
def test_models_predict_what_they_did(ground: Path, call: Callable[..., tuple[int, str, str]], model: str) -> None:
    """A linear model and a tree of SAE features, and one of hidden states."""
    code, _, err = call(
        "predict", ground / f"{model}.json", "--store", ground / "finished", "--out", ground / "a.parquet"
    )
    assert (code, "warning" in err) == (0, False)
    now = pl.read_parquet(ground / "a.parquet")
    folder, _, name = model.split("/")
    before = pl.read_parquet(ground / folder / f"predicted-{name}.parquet")
    assert now["prediction"].equals(before["prediction"])
    for column in ("p_blame", "p_praise"):
        assert now[column].to_numpy() == pytest.approx(before[column].to_numpy(), abs=1e-12)
    assert now["in_training"].null_count() == 60  # such a model does not know


def test_models_explain_themselves(ground: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    for model in ("study", "study-tree"):
        code, out, _ = call("explain", ground / model / "models/sae.json")
        assert (code, "Features that decide most in tiny:" in out) == (0, True)
    assert call("explain", ground / "study/models/baseline.json")[0] == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pool": ["max"]}, "has no pooling 'sum' of SAE 'tiny', which the model reads; it has: max"),
        ({"saes": [{"path": "sae", "name": "other"}]}, "has no SAE 'tiny', which the model reads; it has: other"),
        ({"model": {"name": "tiny-gemma2", "dtype": "float32", "chat": True}}, "was made with model.chat True"),
        ({"saes": [{"path": "sae", "name": "tiny", "layer": 1, "allow_mismatch": True}]}, "hook resid_post of layer 1"),
    ],
)
def test_new_text_is_not_extracted_for_a_model_that_cannot_read_it(
    ground: Path, call: Callable[..., tuple[int, str, str]], changes: dict[str, Any], sentence: str
) -> None:
    job = change_job(ground / "finished.yaml", store="new", **changes)
    code, out, err = call("predict", ground / "study/models/sae.json", "--job", job)
    assert (code, out) == (2, "")
    assert f"new: {sentence}" in err.splitlines()[-1] or f"({sentence} instead of" in err.splitlines()[-1]
    assert not (ground / "new").exists()


def test_what_is_wrong_with_model_or_table_is_said_before_new_text_is_looked_at(
    ground: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    job, model = ground / "no-such-job.yaml", ground / "study/models/sae.json"
    (ground / "mine.csv").write_text("mine")
    for out, sentence in (("mine.csv", "is there already"), ("a.xlsx", "one of .csv, .jsonl, .parquet")):
        code, _, err = call("predict", model, "--job", job, "--out", ground / out)
        assert (code, sentence in err) == (2, True)
    code, _, err = call("predict", ground / "none.json", "--job", job)
    assert (code, "there is no such file" in err) == (2, True)


def test_a_finished_study_goes_on_in_its_place_and_another_one_is_refused_there(
    ground: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    before = {path.name: path.read_bytes() for path in (ground / "study/cells").iterdir()}
    scores = pl.read_parquet(ground / "study/results.parquet")
    code, _, err = call("study", ground / "study.yaml")
    assert code == 0, err
    kept = {path.name: path.read_bytes() for path in (ground / "study/cells").iterdir()}
    assert before.items() < kept.items()  # L2's searches end nearer to the solution now, so its cells are computed anew
    call("study", ground / "study.yaml")
    assert {path.name: path.read_bytes() for path in (ground / "study/cells").iterdir()} == kept
    after = pl.read_parquet(ground / "study/results.parquet")
    assert after["macro_f1"].to_list() == scores["macro_f1"].to_list()
    code, _, err = call("study", change_job(ground / "study.yaml", features=[{"sae": "tiny", "pool": ["max"]}]))
    assert (code, "study holds another study: method tiny:sum -> (none); give the study another" in err) == (2, True)
    assert pl.read_parquet(ground / "study/results.parquet").equals(after)
    change_job(ground / "study.yaml", features=[{"sae": "tiny", "pool": ["max", "sum"]}])
    code, _, err = call("study", change_job(ground / "study.yaml", label="lang"))
    assert (code, "study holds another study: label label -> lang; give the study another" in err) == (2, True)


def test_another_study_is_known_by_the_summary_of_a_study_that_left_no_mark(
    ground: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = call("study", change_job(ground / "study.yaml", split={"seeds": 3, "folds": 3}))
    assert (code, "study holds another study: split.seeds 2 -> 3; give the study another" in err) == (2, True)


def test_a_finished_store_is_studied(ground: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = call("study", change_job(ground / "study.yaml", out="new"))
    assert (code, "Features that decide most in tiny:" in out) == (0, True)
    code, out, err = call("predict", ground / "new/models/sae.json", "--store", ground / "finished")
    assert (code, len(out.splitlines())) == (0, 61)
    assert "the ids of 60 of 60 documents are those of training documents" in err  # the final model is refitted on all


@pytest.mark.slow
def test_new_text_goes_the_whole_way_to_a_table(ground: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    """The corpus of the model itself, computed anew by this version: the same SAE, by the bundle that both name."""
    job = change_job(
        ground / "finished.yaml", store="new", corpus={"path": "corpus.jsonl", "id": "id", "keep": ["lang"]}
    )
    out = ground / "tables" / "answers.jsonl"
    code, said, err = call("predict", ground / "study/models/sae.json", "--job", job, "--out", out)
    assert (code, said) == (0, ""), err
    assert "warning" not in err
    now, before = pl.read_ndjson(out), pl.read_parquet(ground / "study/predicted-sae.parquet")
    assert now.columns == ["doc_id", "lang", "prediction", "p_blame", "p_praise", "in_training", "decision", "error"]
    assert now["prediction"].to_list() == before["prediction"].to_list()
    assert now["p_blame"].to_numpy() == pytest.approx(before["p_blame"].to_numpy(), abs=0.02)  # other bits, same text
