"""What only the front door can do, for it alone sees both stages: studies on a cluster, new text to predictions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

import sparsemill
from sparsemill import installation
from sparsemill.stages import on_ray
from tests.training.stores import SAE, build_store, make_documents


def study_file(folder: Path, store: str, out: str) -> Path:
    study = {
        "store": store,
        "label": "label",
        "features": [{"sae": SAE, "pool": ["max", "sum"]}],
        "baselines": ["hidden_mean"],
        "split": {"seeds": 1, "folds": 2},
        "bootstrap": 100,
        "out": out,
    }
    path = folder / f"{out}.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


@pytest.mark.slow
def test_a_study_on_a_cluster_writes_the_bytes_of_a_study_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = build_store(tmp_path / "s", make_documents(90))
    assert sparsemill.main(["study", str(study_file(tmp_path, store, "cluster")), "--address", "local"]) == 0
    assert sparsemill.main(["study", str(study_file(tmp_path, store, "here"))]) == 0
    for name in ("results.parquet", "predictions.parquet", "models/sae.safetensors"):
        assert (tmp_path / "cluster" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert capsys.readouterr().out.count("Results in") == 2


@pytest.mark.slow
def test_a_cluster_gets_what_tasks_share_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray import cloudpickle

    from training.evaluation import run_here
    from training.spec import load_study
    from training.study import run_study

    documents = make_documents(60)
    documents.text = [f"{text} {'x' * 20_000}" for text in documents.text]  # 1.2 MB
    sent: list[int] = []
    put, remote = ray.put, ray.remote
    monkeypatch.setattr(ray, "put", lambda value: (sent.append(len(cloudpickle.dumps(value))), put(value))[1])
    tasks: list[object] = []

    def spied(**options: object) -> object:
        def decorate(function: object) -> object:
            made = remote(**options)(function)
            call = made.remote
            made.remote = lambda task, *rest: (tasks.append(task), call(task, *rest))[1]
            return made

        return decorate

    monkeypatch.setattr(ray, "remote", spied)
    spec = load_study(study_file(tmp_path, build_store(tmp_path / "s", documents), "cluster"))
    spec = spec.model_copy(update={"baselines": ("tfidf", "char_ngrams", "hidden_mean")})
    there = run_study(spec, executor=on_ray("local"))
    here = run_study(spec.model_copy(update={"out": str(tmp_path / "here")}), executor=run_here)
    assert there.rows == here.rows
    assert len(tasks) > 2 and max(len(cloudpickle.dumps(task)) for task in tasks) < 10_000
    assert len([size for size in sent if size > 1_000_000]) == 1 and len(sent) == 3


def test_an_address_without_a_cluster_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = build_store(tmp_path / "s", make_documents(60))
    path = study_file(tmp_path, store, "out")
    assert sparsemill.main(["study", str(path), "--address", "127.0.0.1:1", "--json"]) == 2
    assert "127.0.0.1:1" in json.loads(capsys.readouterr().out)["error"]


def test_predict_wants_one_source_and_a_model_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        sparsemill.main(["predict", "m.json", "--store", "s", "--job", "j.yaml"])
    assert stop.value.code == 2
    assert sparsemill.main(["predict", str(tmp_path / "m.json"), "--store", str(tmp_path)]) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert sparsemill.main(["explain", str(tmp_path / "m.json")]) == 2
    capsys.readouterr()
    assert sparsemill.main(["predict", "m.json", "--job", str(tmp_path / "no.yaml")]) == 2
    assert capsys.readouterr().err.count("sparsemill: ") == 1


def test_a_missing_package_is_named_with_an_installation_that_works_from_this_clone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = build_store(tmp_path / "s", make_documents(20))
    monkeypatch.setitem(sys.modules, "anndata", None)  # as good as not installed
    export = ["export", store, str(tmp_path / "f.zarr"), "--format", "anndata"]
    assert sparsemill.main(export) == 1
    clone = Path(sparsemill.__file__).parent.parent
    assert f"install it with: pip install --editable '{clone}[export]'" in capsys.readouterr().err
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "site-packages" / "sparsemill" / "installation.py"))
    assert sparsemill.main(export) == 1
    assert "install it with: pip install 'sparsemill[export]'" in capsys.readouterr().err


def test_a_job_and_a_study_of_another_store_are_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.yaml").write_text(
        yaml.safe_dump(
            {
                "corpus": {"path": "c.jsonl"},
                "model": {"name": "google/gemma-2-2b"},
                "saes": [{"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_12/width_16k/canonical"}],
                "store": "store",
            }
        )
    )
    study_file(tmp_path, str(tmp_path / "other"), "study")
    assert sparsemill.main(["run", str(tmp_path / "job.yaml"), str(tmp_path / "study.yaml")]) == 2
    said = capsys.readouterr().err
    assert f"study.yaml reads the store {tmp_path}/other, and" in said and "make them the same" in said


def test_a_job_and_its_study_are_found_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saes = [{"path": "no-sae", "name": SAE}]
    corpus = {"path": "c.jsonl", "keep": ["label"]}
    job = {"corpus": corpus, "model": {"name": "./no-model"}, "saes": saes, "hidden": ["mean"], "store": "store"}
    Path("job.yaml").write_text(yaml.safe_dump(job))
    study_file(tmp_path, "store", "study")
    assert sparsemill.main(["run", "job.yaml", "study.yaml"]) == 2
    said = capsys.readouterr().err
    assert "make them the same" not in said and "no-model" in said  # it came as far as the model


def test_every_command_stands_in_one_group_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sparsemill.main(["--help"])
    page = capsys.readouterr().out
    for name in sparsemill.COMMANDS:
        assert page.count(f"\n  {name:<9} ") == 1, name
