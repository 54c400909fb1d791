"""Whoever reads a study can redo its subtractions: each difference is that of the two figures beside it."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest

import sparsemill as sm
from tests.training.conftest import make_spec
from tests.training.stores import SAE, build_store, make_documents
from training.output.explained import format_explanation
from training.output.printed import format_study
from training.report.explain_model import explained, narrowed
from training.report.glance import sentences
from training.report.study_files import read_study
from training.report.study_page import study_page, study_report, write_study_report
from training.results.records import StudyResult
from training.results.selection import representative, selected_words
from training.study import run_study

NEAR = 0.00151  # three figures, each rounded to three digits
SIGNED = r"[+\u2212-][\d.]+"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """A study whose selection differs between splits, on both sides and within the baseline of the headline."""
    folder = tmp_path_factory.mktemp("redone")
    store = build_store(folder / "store", make_documents(n=90, strength=0.62))
    spec = make_spec(
        store,
        folder / "out",
        features=[{"sae": SAE, "pool": ["max", "sum", "count"], "binarize": [None, 0.0]}],
        baselines=["tfidf", "hidden_mean", "hidden_last"],
        probes=["logistic_l2", "tree"],
        split={"seeds": 4, "folds": 3},
    )
    result = run_study(spec)
    assert result.headline is not None
    for names in (result.headline.sae, result.headline.baseline, result.selected["baseline"].members):
        if len(set(names)) == 1:
            pytest.fail("validation selected one method in every split, so nothing was tested")
    write_study_report(spec.out)
    return result


def number(text: str) -> float:
    return float(text.replace("\u2212", "-").rstrip(".,"))


def test_on_the_terminal(found: StudyResult) -> None:
    said = " ".join(format_study(found).split())
    pairs = re.findall(rf"macro F1 ([\d.]+) against ([\d.]+), ({SIGNED}) \[", said)
    pairs += re.findall(
        rf"(?:between|higher with|lower with) [^()]*? (0\.\d+) (?:and|than with) [^()]*? (0\.\d+) \(({SIGNED})", said
    )
    assert len(pairs) == 1 + len(found.comparisons)
    for a, b, difference in pairs:
        assert number(a) - number(b) == pytest.approx(number(difference), abs=NEAR)
    rows = {one.method: one.macro_f1.value for one in found.summary}
    rows["SAE, selected"] = found.selected["sae"].macro_f1.value
    assert number(pairs[0][0]) == pytest.approx(rows["SAE, selected"], abs=0.0006)
    assert f"({selected_words(found.headline.sae)})" in said  # type: ignore[union-attr]


def test_in_html_and_at_a_glance(found: StudyResult) -> None:
    study = read_study(found.spec.out)
    page = study_page(study)
    sae, baseline = (number(row["value"]) for row in page["verdict"]["rows"][:2])
    (detail,) = (said["detail"] for said in page["verdict"]["lead"] if "difference of" in said["detail"])
    figures = [number(one) for one in re.findall(r" at (\d\.\d+)", detail)]
    (difference,) = re.findall(rf"difference of macro F1 ({SIGNED})", detail)
    assert figures == [sae, baseline] and sae - baseline == pytest.approx(number(difference), abs=NEAR)
    assert any(detail in sentence for sentence in sentences(study))
    line = repr(sm.open_study(found.spec.out))
    assert f"SAE features {sae:.3f} (selected by" in line and f"best baseline {baseline:.3f} (selected by" in line
    for group in page["comparisons"]:
        for row in group["rows"]:
            a, b = (number(one) for one in re.findall(r" ([\d]?\.\d{3})\b", row["words"]))
            assert a - b == pytest.approx(number(row["difference"]), abs=NEAR)
    listed = {row["method"]: row["f1"] for row in page["methods"]["rows"]}
    assert number(listed["SAE, selected"]) == sae
    chosen = found.selected["baseline"].macro_f1.value
    assert number(listed["baseline, selected"]) == pytest.approx(chosen, abs=0.0006)


def test_in_json_and_from_python(found: StudyResult) -> None:
    headline = json.loads((Path(found.spec.out) / "results.json").read_text())["headline"]
    a, b = (headline[side]["macro_f1"]["value"] for side in ("sae", "baseline"))
    assert a - b == pytest.approx(headline["comparison"]["difference"]["value"], abs=1e-12)
    study = sm.open_study(found.spec.out)
    for row in study.comparisons().iter_rows(named=True):
        assert row["a_macro_f1"] - row["b_macro_f1"] == pytest.approx(row["difference"], abs=1e-12)
    assert study.methods()["method"].to_list()[:2] == ["SAE, selected", "baseline, selected"]


def test_a_model_file_is_named_with_its_own_score(found: StudyResult) -> None:
    assert found.headline is not None
    name = representative(found.headline.sae)
    own = next(one.macro_f1.value for one in found.summary if one.method == name)
    said = " ".join(format_study(found).split())
    often = f"selected in {found.headline.sae.count(name)} of 4 splits"
    assert f"models/sae.json is {name}, macro F1 {own:.3f} ({often}; " in said
    assert ["sae", name] == list(study_page(read_study(found.spec.out))["verdict"]["files"][0][:2])


def test_three_places_say_the_same_share_of_the_decision(found: StudyResult) -> None:
    assert found.explanation is not None
    model = explained(f"{found.spec.out}/models/sae.json")
    places = [format_explanation(found.explanation, top=2), format_explanation(narrowed(model, 2, None, None))]
    places.append(unescape(re.sub("<[^>]+>", "", study_report(found.spec.out).decode())))
    shares = [re.findall(r"(?:kept|below) carry (\S+) of the decision", place) for place in places]
    assert shares[0] and shares[0] == shares[1] == shares[2]
