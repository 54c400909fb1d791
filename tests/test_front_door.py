"""What only the front door can do, for it alone sees both stages: studies on a cluster, new text to predictions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import sparsemill
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


def test_an_address_without_a_cluster_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = build_store(tmp_path / "s", make_documents(60))
    path = study_file(tmp_path, store, "out")
    assert sparsemill.main(["study", str(path), "--address", "127.0.0.1:1", "--json"]) == 2
    assert "127.0.0.1:1" in json.loads(capsys.readouterr().out)["error"]


def test_predict_wants_one_source_and_a_model_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        sparsemill.main(["predict", "m.json"])
    assert stop.value.code == 2
    assert sparsemill.main(["predict", str(tmp_path / "m.json"), "--store", str(tmp_path)]) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert sparsemill.main(["explain", str(tmp_path / "m.json")]) == 2
    capsys.readouterr()
    assert sparsemill.main(["predict", "m.json", "--job", str(tmp_path / "no.yaml")]) == 2
    assert capsys.readouterr().err.count("sparsemill: ") == 1
