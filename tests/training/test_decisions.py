"""A study with an operating point: thresholds never see test labels, and model files decide as the study did."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.errors import StudyError
from featurestore.models.calibration import calibrated
from featurestore.models.model import load_model
from featurestore.models.predict import Predicted, predict_store
from featurestore.models.thresholds import class_log_odds, unreached
from tests.training.conftest import make_spec
from tests.training.stores import SAE, build_store, make_documents
from training.documents.labels import load_documents
from training.documents.split import make_splits
from training.methods.matrices import load_matrix
from training.methods.method import Method
from training.output.printed import format_study
from training.probes.fit import fit_final
from training.probes.folds import Labelled
from training.probes.out_of_fold import out_of_fold
from training.report.study_page import study_report
from training.results.decided import operate
from training.results.records import StudyResult
from training.scores.metrics import Prediction
from training.study import run_study

POINT = {"class": "spam", "recall": 0.9, "undecided": 0.1}
ONE_CELL = [{"sae": SAE, "pool": "max"}]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """A study that keeps its evaluated models, on documents of two languages in groups of two."""
    folder = tmp_path_factory.mktemp("decisions")
    documents = make_documents(240, groups=121)
    documents.extra["lang"] = ["en" if i % 7 else "sw" for i in range(240)]
    documents.n_tokens = [5 + i % 40 for i in range(240)]
    store = build_store(folder / "store", documents)
    spec = make_spec(
        store,
        folder / "study",
        features=ONE_CELL,
        baselines=["hidden_mean"],
        split={"seeds": 2, "folds": 3, "group": "group"},
        by=["lang", "length"],
        operating_point=POINT,
        refit=False,
        bootstrap=100,
    )
    return run_study(spec)


@pytest.fixture(scope="module")
def refitted(kept: StudyResult) -> StudyResult:
    """The same study with models fitted on everything, as studies do unless told otherwise."""
    return run_study(kept.spec.model_copy(update={"refit": True, "out": f"{kept.spec.out}-refit", "baselines": ()}))


def answers(result: StudyResult, family: str) -> dict[str, tuple[Predicted, int]]:
    model = load_model(result.paths[f"model_{family}"])
    batches = list(predict_store(model, FeatureStore.open(result.spec.store)))
    return {doc_id: (batch, i) for batch in batches for i, doc_id in enumerate(batch.doc_id)}


@pytest.mark.parametrize("family", ["sae", "baseline"])
def test_predict_says_of_the_test_documents_what_the_study_said(kept: StudyResult, family: str) -> None:
    there, method = answers(kept, family), kept.decided[family].method
    rows = pq.read_table(kept.paths["predictions"]).to_pylist()
    mine = [row for row in rows if row["method"] == method and row["seed"] == 0]
    assert len(mine) == len(kept.splits[0].test)
    calibration = kept.decided[family].calibration
    assert calibration is not None
    for row in mine:
        batch, i = there[row["doc_id"]]
        assert batch.proba[i] == pytest.approx(row["probability"], abs=1e-4)
        by_hand = np.exp(calibrated(calibration.method, calibration.arrays, np.array([row["score"]])))[0]
        assert batch.proba[i] == pytest.approx(by_hand, abs=1e-4)
        assert kept.data.classes[batch.y_pred[i]] == row["y_pred"]
        assert (batch.decided[i] < 0) == row["undecided"]
        assert row["undecided"] == (row["decision"] is None)
        assert row["undecided"] or kept.data.classes[batch.decided[i]] == row["decision"]


def test_decisions_in_the_table_follow_from_scores_and_thresholds_in_the_summary(kept: StudyResult) -> None:
    summary = json.loads(Path(kept.paths["summary"]).read_text())
    for decided in summary["decided"].values():
        rows = pq.read_table(kept.paths["predictions"]).to_pylist()
        states, truth = [], []
        for point in decided["operating_point"]["thresholds"]:
            mine = [r for r in rows if (r["method"], r["seed"]) == (decided["method"], point["seed"])]
            odds = class_log_odds(np.array([r["score"] for r in mine]), 1)
            expected = np.where(odds >= point["high"], "spam", np.where(odds < point["low"], "ham", ""))
            assert [r["decision"] or "" for r in mine] == expected.tolist()
            states += expected.tolist()
            truth += [r["y_true"] for r in mine]
        test = decided["operating_point"]["test"]
        claimed, spam = np.array(states) == "spam", np.array(truth) == "spam"
        assert test["recall"]["value"] == pytest.approx(claimed[spam].mean())
        assert test["precision"]["value"] == pytest.approx(spam[claimed].mean())
        assert test["undecided"]["value"] == pytest.approx((np.array(states) == "").mean())
        assert test["recall"]["interval"] == "Wilson, clustered"  # two seeds, and documents in groups
        assert test["recall"]["low"] < test["recall"]["value"] < test["recall"]["high"]


def test_flipped_test_labels_move_no_threshold(store: str, tmp_path: Path) -> None:
    opened, spec = FeatureStore.open(store), make_spec(store, tmp_path, operating_point=POINT)
    assert spec.operating_point is not None
    data = load_documents(opened, spec)
    splits, method = make_splits(data, spec.split), Method("m", "sae", SAE, "max")
    X, found = load_matrix(opened, method, data).X, []
    for flipped in (False, True):
        points = []
        for split in splits:
            y = data.y.copy()
            y[split.test] = 1 - y[split.test] if flipped else y[split.test]
            scores = out_of_fold(method, Labelled(X, y, 2), [split], [1.0])
            nothing = np.log(np.full((len(split.test), 2), 0.5))
            answer = Prediction(split.test, y[split.test], y[split.test], nothing)
            points += operate(scores, [answer], replace(data, y=y), [split], spec.operating_point)[0]
        found.append(points)
    assert repr(found[0]) == repr(found[1])  # in which an undefined cost is equal to itself


def test_the_file_says_what_it_is_and_what_its_evaluation_was(kept: StudyResult, refitted: StudyResult) -> None:
    for study, refit in ((kept, False), (refitted, True)):
        header = json.loads(Path(study.paths["model_sae"]).read_text())
        train, everything = len(study.splits[0].train), len(study.data.y)
        summary = next(one for one in study.summary if one.method == header["method"])
        assert header["refit"] is refit
        assert header["trained_on"]["documents"] == (everything if refit else train)
        assert header["evaluation"]["training_documents"] == train
        assert header["evaluation"]["split_sha256"] == study.split_sha256
        assert header["evaluation"]["macro_f1"]["low"] == summary.macro_f1.low
        assert [one["class"] for one in header["evaluation"]["classes"]] == list(study.data.classes)
        assert header["calibration"]["method"] in (None, "sigmoid", "isotonic", "temperature")
        trained = {doc_id for doc_id, (batch, i) in answers(study, "sae").items() if batch.in_training[i]}
        wanted = study.data.doc_id if refit else study.data.doc_id[study.splits[0].train]
        assert trained == set(wanted)
    point = json.loads(Path(kept.paths["model_sae"]).read_text())["operating_point"]
    assert (point["class"], point["aim"], point["reached"]) == ("spam", {"recall": 0.9}, True)
    assert point["test"]["recall"]["documents"] == int((kept.data.y[kept.splits[0].test] == 1).sum())


def test_a_refitted_model_keeps_thresholds_and_calibration_of_the_evaluated_one(
    kept: StudyResult, refitted: StudyResult
) -> None:
    before, after = (load_model(study.paths["model_sae"]) for study in (kept, refitted))
    assert after.header["operating_point"] == before.header["operating_point"]
    assert after.header["calibration"] == before.header["calibration"]
    assert after.header["evaluation"] == before.header["evaluation"]
    assert not np.array_equal(after.tensors["coef"], before.tensors["coef"])


def test_a_refitted_model_is_a_fit_on_every_document_at_the_chosen_value(refitted: StudyResult) -> None:
    model, store = load_model(refitted.paths["model_sae"]), FeatureStore.open(refitted.spec.store)
    method = Method("m", "sae", SAE, "max")
    of = Labelled(load_matrix(store, method, refitted.data).X, refitted.data.y, 2)
    final = fit_final(method, of, np.arange(len(of.y)), model.header["value"])
    assert model.tensors["coef"] == pytest.approx(final.probe.tensors["coef"])
    explained = model.header["explanation"]  # of this model; the study's own is of the evaluated one
    assert (explained["documents"], explained["refit"]) == (len(of.y), True)
    assert refitted.explanation is not None
    assert refitted.explanation["documents"] == len(refitted.splits[0].train)


def test_the_screen_says_all_of_it(kept: StudyResult, refitted: StudyResult, result: StudyResult) -> None:
    said = format_study(kept)
    assert "Operating point of 'spam': recall of at least 0.9, 10% handed on to people" in said
    assert "precision  recall     F1  AUPRC" in said
    assert "by lang" in said
    assert "too few to say anything" in said  # few documents are in Swahili
    assert "Model files: the evaluated models, fitted on" in said
    other = f"Model files: fitted on all {len(refitted.data.y)} labelled documents after the evaluation"
    assert other in format_study(refitted)
    assert "Operating point" not in format_study(result)


def test_what_the_model_files_threshold_did_stands_beside_the_figures_of_all_splits(kept: StudyResult) -> None:
    summary = json.loads(Path(kept.paths["summary"]).read_text())
    decided = summary["decided"]["sae"]
    point = decided["operating_point"]
    rows = pq.read_table(kept.paths["predictions"]).to_pylist()
    first = [r for r in rows if (r["method"], r["seed"]) == (decided["method"], 0)]
    claimed = [r for r in first if r["decision"] == "spam"]
    right, spam = (sum(r["y_true"] == "spam" for r in some) for some in (claimed, first))
    test = point["model_file"]["test"]
    assert (test["precision"]["hits"], test["precision"]["documents"]) == (right, len(claimed))
    assert test == json.loads(Path(kept.paths["model_sae"]).read_text())["operating_point"]["test"]
    said = f"the model file's threshold (seed 0) claims {len(claimed)} of {len(first)} test documents, {right} right"
    assert said in point["model_file"]["says"]
    assert f"{right} of {spam} of the class found" in point["model_file"]["says"]
    assert point["model_file"]["says"] in " ".join(format_study(kept).split())
    page = page_text(kept)
    assert point["model_file"]["says"] in page


def page_text(study: StudyResult) -> str:
    """The text of a study's page, each run of spaces as one."""
    text = re.sub(r"<[^>]+>", "", study_report(study.spec.out).decode())
    return " ".join(html.unescape(text).split())


def test_an_aim_reached_on_one_document_is_warned_of_on_screen_page_and_by_predict(tmp_path: Path) -> None:
    store = build_store(tmp_path / "store", make_documents(120, strength=0.5))
    spec = make_spec(
        store, tmp_path / "study", features=ONE_CELL, baselines=["tfidf"], bootstrap=100,
        operating_point={"class": "spam", "recall": 0.98}, split={"seeds": 2, "folds": 2},
    )  # fmt: skip
    found = run_study(spec)
    decided = json.loads(Path(found.paths["summary"]).read_text())["decided"]
    few = decided["sae"]["operating_point"]["thresholds"][0]["few"]
    assert few.startswith("recall 0.98 of 'spam' is reached out of fold on few documents (")
    said = f"{few} (seed 0; reached on few in 2 of 2 splits)"
    assert f"warning: {SAE}:max: {said}" in " ".join(format_study(found).split())
    assert f"warning: {said}" in page_text(found)
    assert few in str(unreached(load_model(found.paths["model_sae"]).header))
    assert decided["baseline"]["operating_point"]["model_file"] is None  # TF-IDF has no file


def test_slices_are_scored_as_if_they_were_the_test_set(kept: StudyResult) -> None:
    from sklearn.metrics import f1_score

    summary = json.loads(Path(kept.paths["summary"]).read_text())
    slices = kept.data.slices["lang"]
    lang = dict(zip(kept.data.doc_id, (slices.names[code] for code in slices.code), strict=True))
    rows = pq.read_table(kept.paths["predictions"]).to_pylist()
    for one in (s for s in summary["slices"] if s["by"] == "lang" and s["method"] == f"{SAE}:max"):
        inside = [r for r in rows if (r["method"], lang[r["doc_id"]]) == (one["method"], one["slice"])]
        by_seed = [[r for r in inside if r["seed"] == seed] for seed in (0, 1)]
        f1 = [f1_score([r["y_true"] for r in s], [r["y_pred"] for r in s], average="macro") for s in by_seed if s]
        assert one["macro_f1"]["value"] == pytest.approx(np.mean(f1))
        assert one["documents"] == len({r["doc_id"] for r in inside})
        assert one["too_small"] == (one["slice"] == "sw")
    table = pq.read_table(kept.paths["slices"])
    assert table.num_rows == len(summary["slices"])
    lengths = table.filter(np.array([by == "length" for by in table["by"].to_pylist()]))["slice"].unique().to_pylist()
    assert len(lengths) == 4
    assert lengths[0].startswith("1-")


def test_slices_have_precision_and_recall_at_the_thresholds_counted_from_the_decisions(kept: StudyResult) -> None:
    summary = json.loads(Path(kept.paths["summary"]).read_text())
    slices = kept.data.slices["lang"]
    lang = dict(zip(kept.data.doc_id, (slices.names[code] for code in slices.code), strict=True))
    rows = pq.read_table(kept.paths["predictions"]).to_pylist()
    table = {(r["by"], r["slice"], r["method"]): r for r in pq.read_table(kept.paths["slices"]).to_pylist()}
    mine = [s for s in summary["slices"] if s["by"] == "lang" and s["method"] == f"{SAE}:max"]
    assert {s["slice"] for s in mine} == {"en", "sw"}
    for one in mine:
        inside = [r for r in rows if (r["method"], lang[r["doc_id"]]) == (one["method"], one["slice"])]
        claimed = [r for r in inside if r["decision"] == "spam"]
        spam = [r for r in inside if r["y_true"] == "spam"]
        both = sum(r["y_true"] == "spam" for r in claimed)
        precision, recall = one["operating_point"]["precision"], one["operating_point"]["recall"]
        assert (precision["hits"], precision["documents"]) == (both, len(claimed))
        assert (recall["hits"], recall["documents"]) == (both, len(spam))
        row = table["lang", one["slice"], one["method"]]
        assert (row["claimed"], row["claimed_right"], row["of_class"]) == (len(claimed), both, len(spam))
        assert row["point_recall"] == pytest.approx(both / len(spam)) and row["point_recall_low"] == recall["low"]
        counts = f"{len(claimed)} +{both} .*{len(spam)} +{both}"
        (line,) = re.findall(rf"^{one['slice']} +{SAE}:max .*{counts}.*$", format_study(kept), re.M)
        assert (f"{recall['value']:.3f} [" in line) != one["too_small"]
        assert f"{both} of {len(spam)}" in page_text(kept)
    assert table["lang", "en", "majority"]["claimed"] is None


def test_a_class_that_is_not_there_is_refused_before_anything_is_written(store: str, tmp_path: Path) -> None:
    spec = make_spec(store, tmp_path / "study", operating_point={"class": "spm", "recall": 0.9})
    with pytest.raises(StudyError, match=r"operating_point.class: there is no class 'spm'; .* did you mean 'spam'"):
        run_study(spec)
    assert not (tmp_path / "study").exists()


def test_an_unreachable_precision_is_said_on_screen_and_in_the_file(tmp_path: Path) -> None:
    store = build_store(tmp_path / "store", make_documents(120, strength=0.5))
    point = {"class": "ham", "precision": 1.0}
    spec = make_spec(
        store, tmp_path / "study", features=ONE_CELL, baselines=[], operating_point=point, bootstrap=100,
        split={"seeds": 1, "folds": 2},
    )  # fmt: skip
    found = run_study(spec)
    header = json.loads(Path(found.paths["model_sae"]).read_text())["operating_point"]
    assert header["reached"] is False  # the features say nothing, and the surest document is of the other class
    assert header["out_of_fold"]["precision"] < 1.0
    assert "precision 1 of 'ham' is not reached out of fold" in " ".join(format_study(found).split())
    assert np.isfinite([header["low"], header["high"]]).all()


def test_page_and_screen_give_the_same_scores_of_a_class(kept: StudyResult) -> None:
    (one,) = (m for m in kept.summary if m.method == f"{SAE}:max")
    shown = [f"{getattr(one.classes[1], name):.3f}" for name in ("precision", "recall", "f1", "auprc")]
    assert re.search(rf"^spam +{SAE}:max +{' +'.join(shown)}$", format_study(kept), re.M)
    assert "Scores of each class, as the likeliest one, means over splits:" in format_study(kept)
    cells = "".join(rf'<td class="n">{value}</td>' for value in shown)
    assert re.search(
        rf'<th scope="row">spam</th><td class="n">[\d,]+</td>{cells}', study_report(kept.spec.out).decode()
    )
