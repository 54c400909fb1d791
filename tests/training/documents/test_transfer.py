"""Transfer trains on one value of a column and gives figures for each; parts without enough documents say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.conftest import make_spec
from tests.training.stores import build_store, make_documents
from training.output.files import summary_json
from training.output.printed import format_study
from training.report.study_page import study_report
from training.results.records import StudyResult
from training.study import run_study


def test_transfer_trains_on_one_value_and_tests_on_each(tmp_path: Path) -> None:
    documents = make_documents(240, strength=0.9)
    documents.extra["lang"] = ["en" if i % 4 < 2 else "de" for i in range(240)]
    store = build_store(tmp_path / "s", documents)
    found = run_study(
        make_spec(store, tmp_path / "out", transfer={"by": "lang"}, regimes={"train_sizes": [60]}, baselines=["tfidf"])
    )
    matrix = {(r.condition, r.test_part) for r in found.regimes}
    assert matrix == {("n=60", ""), *((f"train={a}", b) for a in ("de", "en", "all") for b in ("de", "en"))}
    for row in found.regime_rows:
        if row.condition == "train=en":
            assert row.n_train < 110
    assert {(a, b) for _, a, b, _ in found.overlaps} == {("de", "en")}
    said = format_study(found)
    assert "tested on de" in said
    assert "Overlap (Jaccard)" in said


def languages_study(
    tmp_path: Path, lang: list[str], transfer: dict[str, Any], part: list[str] | None = None
) -> tuple[StudyResult, list[str], str]:
    """A study of transfer between languages, what it warns of, and what its page says."""
    documents = make_documents(len(lang), strength=0.9)
    documents.extra["lang"] = lang
    split: dict[str, Any] = {"seeds": 2, "folds": 2}
    if part is not None:
        documents.extra["part"] = part
        split = {"seeds": 1, "folds": 2, "column": {"name": "part"}}
    store = build_store(tmp_path / "s", documents)
    spec = make_spec(store, tmp_path / "out", transfer={"by": "lang", **transfer}, split=split, baselines=["majority"])
    found = run_study(spec)
    page = study_report(spec.out).decode()
    assert all(json_warning in page.replace("&#39;", "'") for json_warning in summary_json(found)["split"]["warnings"])
    return found, summary_json(found)["split"]["warnings"], page


def test_a_value_called_all_keeps_figures_of_its_own(tmp_path: Path) -> None:
    lang = ["all" if i % 4 < 2 else "de" for i in range(160)]
    found, _, page = languages_study(tmp_path, lang, {})
    sizes = {r.condition: r.n_train for r in found.regimes}
    assert set(sizes) == {"train=all", "train=de", "train=(all)"} and sizes["train=(all)"] > 1.5 * sizes["train=all"]
    assert len({(r.condition, r.test_part, r.method) for r in found.regimes}) == len(found.regimes)
    assert "train=(all)" in format_study(found) and '<th scope="row">(all)</th>' in page


@pytest.mark.parametrize("given", [False, True])
def test_a_value_that_no_test_set_holds_has_no_figures_and_is_named(tmp_path: Path, given: bool) -> None:
    """Four `fr` documents are all needed to train on, or a given split tests on `en` alone."""
    lang = ["fr" if i < 4 else "en" if i % 4 < 2 else "de" for i in range(160)]
    part = ["test" if i % 3 == 0 and one == "en" else "train" for i, one in enumerate(lang)] if given else None
    found, warnings, page = languages_study(tmp_path, lang, {}, part)
    tested = {r.test_part for r in found.regimes}
    assert tested == ({"en"} if given else {"en", "de"})
    assert {r.condition for r in found.regimes} == {"train=de", "train=en", "train=fr", "train=all"}
    absent = "'de', 'fr'" if given else "'fr'"
    (said,) = (one for one in warnings if one.startswith("transfer:"))
    assert said == f"transfer: no test set holds a document of {absent}, so nothing is said of how that goes"
    assert f"warning: {said}" in " ".join(format_study(found).split())
    assert "tested on fr" not in format_study(found) and "Transfer by lang" in page


def test_a_part_of_few_test_documents_has_no_interval_and_says_how_many_they_are(tmp_path: Path) -> None:
    lang = ["fr" if i == 0 else "en" if i % 4 < 2 else "de" for i in range(160)]
    part = ["test" if i // 4 % 2 == 0 else "train" for i in range(160)]  # `fr`, and half of the others
    found, warnings, page = languages_study(tmp_path, lang, {"train": ["en", "de"]}, part)
    assert warnings == []
    assert {(r.test_part, r.documents, r.units) for r in found.regimes} == {
        ("fr", 1, 1),
        ("en", 39, 39),
        ("de", 40, 40),
    }
    for r in found.regimes:
        assert not np.isnan(r.macro_f1.value)
        for side in (r.macro_f1.low, r.macro_f1.high, r.auroc.low):
            assert np.isnan(side) == (r.test_part == "fr")
    assert "note: fr: 1 test document: too few for an interval" in format_study(found)
    assert 'fr<br><span class="soft">1 document</span>' in page and "39 documents" in page


def test_documents_of_a_group_count_once_for_an_interval(tmp_path: Path) -> None:
    documents = make_documents(240, strength=0.9, groups=60)
    documents.extra["lang"] = ["en" if i % 60 < 30 else "de" for i in range(240)]
    store = build_store(tmp_path / "s", documents)
    split = {"seeds": 1, "test": 0.5, "folds": 2, "group": "group"}
    found = run_study(
        make_spec(store, tmp_path / "out", transfer={"by": "lang"}, split=split, features=[], baselines=["hidden_mean"])
    )
    for r in found.regimes:
        assert r.documents == 4 * r.units >= 30 > r.units
        assert np.isnan(r.macro_f1.low)
    assert "test documents in" in format_study(found)
