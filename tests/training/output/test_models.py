"""A saved model predicts what the study's own model predicts, anywhere, and a spoiled file is one sentence."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from featurestore import FeatureStore
from featurestore.errors import StudyError
from featurestore.models.model import load_model
from featurestore.models.predict import predict_store
from tests.training.conftest import make_spec
from tests.training.stores import HOOK, SAE, build_store, make_documents
from training import cli, predict_cli
from training.documents.labels import load_documents
from training.documents.split import make_splits
from training.methods.method import Method
from training.output.explain import fit_method
from training.output.models import pack, save_model
from training.probes.catalogue import parameter_of
from training.results.records import StudyResult
from training.spec import PROBES

METHODS = [
    *[Method(f"m {probe}", "sae", SAE, "sum", probe=probe) for probe in PROBES],
    Method("binary", "sae", SAE, "max", 1.0),
    Method("learnt", "sae", SAE, "max", "learnt"),
    Method("root", "sae", SAE, "sum", scale="sqrt"),
    Method("selected", "sae", SAE, "max", select="class_means", k=9, min_documents=3),
    Method("both", "sae", f"{SAE}+{SAE}", "max"),
    Method("dense", "dense", column=f"{HOOK}__hidden_mean"),
    Method("dense tree", "dense", column=f"{HOOK}__hidden_mean", probe="tree"),
]


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    documents = make_documents(150, classes=("a", "b", "c"))
    documents.error[7], documents.features[7], documents.n_tokens[7] = "could not be read", {}, 0
    return build_store(tmp_path_factory.mktemp("models") / "store", documents)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("two", [True, False])
def test_a_saved_model_predicts_what_the_fitted_one_does(
    method: Method, two: bool, store: str, three_classes: str, tmp_path: Path
) -> None:
    opened = FeatureStore.open(store if two else three_classes)
    data = load_documents(opened, make_spec(opened.uri, tmp_path / "out"))
    split = make_splits(data, make_spec(opened.uri, tmp_path / "out").split)[0]
    value = {"C": 1.0, "max_depth": 4.0, "k": 8.0}.get(parameter_of(method.probe) or "")
    _, matrix, final = fit_method(opened, method, data, split, value)
    trained_on = {"identity": opened.plan.identity, "d_sae": {SAE: 96}}
    model = pack(method, matrix, final, {"classes": list(data.classes), "trained_on": trained_on})
    save_model(model, str(tmp_path / "models" / "m"))
    batches = list(predict_store(load_model(tmp_path / "models" / "m.json"), opened))
    answers = {i: (y, p) for b in batches for i, y, p in zip(b.doc_id, b.y_pred, b.proba, strict=True)}
    assert len(answers) == 150
    X = final.prepare.transform(matrix.X.astype(np.float64))
    expected = np.exp(final.probe.log_proba(X))
    for doc_id, row, y_pred in zip(data.doc_id, expected, final.probe.predict(X), strict=True):
        assert answers[doc_id][1] == pytest.approx(row, abs=1e-9)
        assert answers[doc_id][0] == y_pred
    if not two:
        assert answers["doc-7"][0] == -1  # it has no features, so it gets no class


def test_a_models_files_hold_no_code_and_say_where_it_comes_from(result: StudyResult) -> None:
    folder = Path(result.paths["model_sae"]).parent
    assert {p.suffix for p in folder.iterdir()} == {".json", ".safetensors"}
    header = json.loads((folder / "sae.json").read_text())
    assert header["trained_on"]["fingerprint"] == result.store_fingerprint
    assert header["trained_on"]["split_sha256"] == result.split_sha256
    assert header["explanation"] == result.explanation


def test_a_models_file_knows_how_often_its_features_fired_in_training(result: StudyResult) -> None:
    model, store = load_model(result.paths["model_sae"]), FeatureStore.open(result.spec.store)
    threshold = model.header["binarize"] if isinstance(model.header["binarize"], float) else None
    trained = result.data.doc_id[result.splits[0].train]
    X = store.take(trained, SAE, model.header["pool"], threshold).X[:, model.tensors["columns"]]
    assert len(trained) == model.header["trained_on"]["documents"]
    limit = model.tensors.get("binarize", np.zeros(X.shape[1]))
    assert model.tensors["document_frequency"] == pytest.approx((X.toarray() > limit).mean(axis=0))


def spoil(folder: Path, header: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None) -> Path:
    content = json.loads((folder / "sae.json").read_text()) | (header or {})
    (folder / "sae.json").write_text(json.dumps(content))
    if tensors is not None:
        save_file(load_file(folder / "sae.safetensors") | tensors, folder / "sae.safetensors")
    return folder / "sae.json"


@pytest.mark.parametrize(
    ("header", "tensors", "sentence"),
    [
        ({"format": "pickle"}, None, "the JSON file does not say so"),
        ({"format_version": 9}, None, "its version is 9"),
        ({"classes": 3}, None, "key 'classes' is missing or wrong"),
        ({"link": "exec"}, None, "key 'link' or 'trained_on' is wrong"),
        (None, {"scale": np.ones(2)}, "tensor 'scale' has shape"),
        (None, {"intercept": np.array([np.nan])}, "a weight is not finite"),
        ({"pool": None}, None, "key 'pool' or 'dense' is wrong"),
        (None, {"trained_ids": np.array([5, 3], np.uint64)}, "tensor 'trained_ids' is not sorted"),
    ],
)
def test_a_spoiled_model_is_one_sentence(
    header: dict[str, Any] | None, tensors: dict[str, Any] | None, sentence: str, result: StudyResult, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for file in Path(result.paths["model_sae"]).parent.glob("sae.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    path = spoil(folder, header, tensors)
    with pytest.raises(StudyError, match=sentence):
        load_model(path)
    (folder / "sae.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(StudyError, match=r"cannot be read as a model|does not say so|its version|is missing|is wrong"):
        load_model(path)
    with pytest.raises(StudyError, match="there is no such file"):
        load_model(tmp_path / "nothing")


def test_a_store_of_another_model_is_refused(result: StudyResult, tmp_path: Path) -> None:
    model = load_model(result.paths["model_sae"])
    identity = {"model": {"name": "another"}}
    other = type(model)(
        {**model.header, "trained_on": {**model.header["trained_on"], "identity": identity}}, model.tensors
    )
    with pytest.raises(StudyError, match=r"was made with model\.name None, but this model was trained on another"):
        list(predict_store(other, FeatureStore.open(result.spec.store)))


def run(command: str, arguments: list[str], as_json: bool) -> int:
    parser, module = argparse.ArgumentParser(), predict_cli if command == "predict" else cli
    getattr(module, f"{command}_parser")(parser)
    args = parser.parse_args(arguments)
    args.json = as_json
    return int(getattr(module, command)(args))


def test_predict_writes_a_row_for_each_document(
    result: StudyResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "answers.parquet"
    assert run("predict", [result.paths["model_sae"], "--store", result.spec.store, "--out", str(out)], False) == 0
    table = pq.read_table(out).to_pylist()
    assert len(table) == 150
    assert all(row["p_ham"] + row["p_spam"] == pytest.approx(1) for row in table)
    assert all((row["prediction"] == "spam") == (row["p_spam"] > 0.5) for row in table)
    assert "150 documents" in capsys.readouterr().err
    assert run("predict", [result.paths["model_sae"], "--store", result.spec.store], True) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 150


def test_explain_prints_the_features_of_a_model(result: StudyResult, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", [result.paths["model_sae"]], False) == 0
    assert "Features that decide most in l1_tiny" in capsys.readouterr().out
    assert run("explain", [result.paths["model_sae"]], True) == 0
    said = json.loads(capsys.readouterr().out)["explanation"]
    listed = said.pop("listed")
    assert said == result.explanation
    assert listed["features"] == 20 and 0 < listed["share"] <= 1


def test_a_model_says_what_its_bundle_can_be_built_from(tmp_path: Path) -> None:
    """As `store.json` has it: the job, the commits that it was settled on, and the hook of each SAE."""
    from featurestore.format.provenance import bundle_sources

    spec = {
        "model": {"name": "google/gemma-2-2b", "revision": "main"},
        "saes": [
            {"name": SAE, "release": "scope", "id": "layer_12/width_16k", "path": None, "revision": None},
            {"name": "mine", "path": "/saes/mine", "release": None, "id": None, "revision": None},
        ],
    }
    identity = {
        "model": {"name": "gemma-2-2b", "dtype": "bfloat16"},
        "saes": {SAE: {"hook": "resid_post of layer 12", "sha256": "ab" * 32}},
    }
    hub = {"model": "c" * 40, "saes": {SAE: "d" * 40}}
    opened = FeatureStore.open(build_store(tmp_path / "s", make_documents(6)))
    plan = replace(opened.plan, spec=spec, identity=identity, extra={"hub": hub})
    assert bundle_sources(plan) == {
        "model": {"name": "google/gemma-2-2b", "revision": "c" * 40, "dtype": "bfloat16"},
        "saes": {
            SAE: {
                "release": "scope",
                "id": "layer_12/width_16k",
                "revision": "d" * 40,
                "path": None,
                "sha256": "ab" * 32,
                "hook": {"layer": 12, "site": "resid_post"},
            }
        },
    }
    nothing = bundle_sources(opened.plan)
    assert nothing["saes"][SAE]["hook"] is None


def test_a_studys_model_carries_the_sources_of_its_store(result: StudyResult) -> None:
    from featurestore.format.provenance import bundle_sources

    header = load_model(result.paths["model_sae"]).header
    assert header["bundle"] == bundle_sources(FeatureStore.open(result.spec.store).plan)
