"""The page of a study: words first, all that the study says, nothing that it keeps to itself, always the same."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report_size import BUDGET, make_study
from featurestore.errors import StudyError
from tests.training.conftest import make_spec
from tests.training.report.hostile import HOSTILE
from tests.training.stores import SAE, build_store, make_documents
from training.report.study_files import read_study
from training.report.study_page import study_page, study_report, write_study_report
from training.results.records import StudyResult
from training.study import run_study


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("made") / "study", 40, 10)


def text_of(page: bytes) -> str:
    html = re.sub(r"<(style|script)>.*?</\1>", "", page.decode(), flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def edited(study: Path, to: Path, **changes: Any) -> str:
    """A copy of a study whose results.json says something else."""
    shutil.copytree(study, to)
    summary = json.loads((to / "results.json").read_text())
    (to / "results.json").write_text(json.dumps({**summary, **changes}))
    return str(to)


@pytest.mark.parametrize(("cells", "features"), BUDGET)
def test_a_page_stays_within_its_budget_of_bytes(cells: int, features: int, tmp_path: Path) -> None:
    page = study_report(str(make_study(tmp_path / "study", cells, features)))
    most, zipped = BUDGET[cells, features]
    assert len(page) <= most
    assert zipped is None or len(gzip.compress(page, mtime=0)) <= zipped
    assert page.count(b"<mark") > features  # evidence is in it


def test_the_script_is_small(made: Path) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", study_report(str(made)).decode(), re.S)
    assert len(script) <= 15_000


def test_a_page_of_a_study_that_ran_has_every_section_and_the_same_bytes_again(result: StudyResult) -> None:
    page = study_report(result.spec.out)
    assert page == study_report(result.spec.out)
    ids = re.findall(r'id="(\w+)"', page.decode())
    for section in (
        "verdict",
        "tried",
        "comparisons",
        "documents",
        "features",
        "behaviour",
        "errors",
        "costs",
        "provenance",
    ):
        assert section in ids
    said = text_of(page)
    assert result.store_fingerprint in said and result.split_sha256 in said
    for method in result.summary:
        assert method.method.replace(">", "&gt;") in said


def test_that_the_majority_is_not_beaten_comes_first(tmp_path: Path) -> None:
    store = build_store(tmp_path / "s", make_documents(n=60, strength=0.5))
    found = run_study(make_spec(store, tmp_path / "out", features=[{"sae": "l1_tiny"}], baselines=["hidden_mean"]))
    page = study_page(read_study(str(tmp_path / "out")))
    first = page["verdict"]["lead"][0]
    assert first["kind"] == "bad" and "not shown to be better than always answering" in first["text"]
    assert found.explanation is not None and found.explanation["majority"]["beaten"] is False


def test_words_follow_the_corrected_p_and_not_the_size(made: Path, tmp_path: Path) -> None:
    summary = json.loads((made / "results.json").read_text())
    comparison = {**summary["headline"]["comparison"], "shown": True, "p_adjusted": 0.01}
    headline = {**summary["headline"], "comparison": comparison}
    shown = edited(made, tmp_path / "shown", headline=headline)
    assert "SAE features do better than the best baseline" in text_of(study_report(shown))
    assert "No difference is shown" in text_of(study_report(str(made)))


def test_it_works_without_evidence_predictions_explanation_and_models(made: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(made / "results.json", bare)
    page = study_report(str(bare))
    assert b'id="features"' not in page and b'id="behaviour"' not in page
    unmarked = tmp_path / "unmarked"
    shutil.copytree(made, unmarked)
    shutil.rmtree(unmarked / "evidence")
    assert "their evidence was not gathered" in text_of(study_report(str(unmarked)))


@pytest.mark.parametrize("name", ["results.json", "results.parquet", "predictions.parquet", "explanation.json"])
def test_a_damaged_file_is_one_sentence(made: Path, tmp_path: Path, name: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(made, broken)
    (broken / name).write_bytes(b'{"spec": ')
    with pytest.raises(StudyError, match=rf"{name}: is damaged .*; run the study again"):
        study_report(str(broken))


@pytest.mark.parametrize("number", ["9" * 400, "1e999", "-Infinity"])
def test_a_number_that_nobody_can_calculate_with_is_damage(made: Path, tmp_path: Path, number: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(made, broken)
    summary = json.loads((broken / "results.json").read_text())
    summary["methods"][0]["macro_f1"]["value"] = "number"
    (broken / "results.json").write_text(json.dumps(summary).replace('"number"', number))
    with pytest.raises(StudyError, match=r"results\.json: is damaged \(it holds .*; run the study again"):
        study_report(str(broken))


@pytest.mark.parametrize("summary", [[], {"spec": 1, "documents": 2, "methods": 3}, {"spec": {}}])
def test_json_that_is_no_study_is_one_sentence(tmp_path: Path, summary: Any) -> None:
    (tmp_path / "results.json").write_text(json.dumps(summary))
    with pytest.raises(StudyError, match="run the study again"):
        study_report(str(tmp_path))


def test_no_study_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"holds no results\.json"):
        study_report(str(tmp_path))


def test_a_private_study_writes_no_text_no_id_and_no_name_of_a_file(tmp_path: Path) -> None:
    documents = make_documents(n=90, prefix="secret-file.csv")
    store = build_store(tmp_path / "s", documents)
    other = build_store(tmp_path / "merger-emails" / "a", documents)
    out, features = tmp_path / "out", [{"sae": SAE}, {"sae": SAE, "store": other}]
    run_study(make_spec(store, out, text="private", features=features, baselines=["hidden_mean"]))
    write_study_report(str(out))
    for name in ("report.html", "explanation.json", "models/sae.json", "models/baseline.json"):
        content = (out / name).read_text()
        assert "secret-file" not in content, name
        assert "corpus.jsonl" not in content, name
        assert "merger-emails" not in content, name
        assert not re.search(r"word\d|hint\d", content), name


def test_no_text_keeps_it_out_of_a_page_of_any_study(result: StudyResult) -> None:
    page = study_report(result.spec.out, private=True).decode()
    assert not re.search(r"word\d|hint\d|doc-\d", page)
    assert result.spec.out not in page and result.spec.store not in page


def test_undefined_scores_and_silent_classes_are_said(made: Path, tmp_path: Path) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    odd = tmp_path / "odd"
    shutil.copytree(made, odd)
    table = pq.read_table(odd / "predictions.parquet")
    table = table.set_column(5, "y_pred", pc.if_else(pc.equal(table["y_pred"], "attack"), "benign", "benign"))
    scores = [[float("nan")] * 2 if i < 7 else row for i, row in enumerate(table["score"].to_pylist())]
    table = table.set_column(6, "score", [scores])
    pq.write_table(table, odd / "predictions.parquet")
    said = text_of(study_report(str(odd)))
    assert "It never answers “attack”" in said
    assert "answers have scores that are not numbers" in said


def test_hostile_strings_stay_text(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", 70, 30, strange=HOSTILE)
    html = study_report(str(study)).decode()
    assert html.count("<script>") == html.count("</script>") == 1
    assert html.count("<style>") == html.count("</style>") == 1
    assert not re.search(r"<(img|iframe|object|embed|link|base|form|video|audio|math|template|plaintext)\b", html)
    assert not re.search(r"<[^>]*\s(on\w+|style)=", re.sub(r'"[^"]*"', '""', html))
    assert not any(c in html for c in "\u2028\u2029\u202e\u202d\u2066\u2067\u200b\ufeff\x00\x1b\u00ad")
