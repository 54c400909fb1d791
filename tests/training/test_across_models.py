"""Studies across models: features of one store, labels and numbers from a table, what another store holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from featurestore.errors import StudyError
from tests.training.conftest import make_spec
from tests.training.stores import SAE, build_store, make_documents
from training.output.printed import format_study
from training.report.study_page import study_report
from training.results.records import StudyResult
from training.spec import study_from_mapping
from training.study import run_study

N = 200


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store `a` whose features tell the label, store `b` of the same documents in another order, and a label table."""
    root = tmp_path_factory.mktemp("across")
    documents = make_documents(N, strength=0.9, seed=3)
    build_store(root / "a", documents)
    weak = make_documents(N, strength=0.55, seed=4)
    order = np.random.default_rng(0).permutation(N).tolist()
    build_store(root / "b", weak, order=order)
    rng = np.random.default_rng(1)
    right = [label == "spam" for label in documents.label]
    rows = {
        "id": [documents.ids[i] for i in order],
        "correct": [right[i] for i in order],
        "margin": [float(right[i]) + float(rng.normal(scale=1.5)) for i in order],
        "choice_bytes": [int(rng.integers(2, 9)) for _ in order],
        "log_likelihood": [[-1.0, -2.0] for _ in order],
    }
    pl.DataFrame(rows).write_parquet(root / "labels.parquet")
    return root


def spec_of(ground: Path, out: Path, **changes: Any) -> dict[str, Any]:
    table = {"path": str(ground / "labels.parquet"), "id": "id"}
    return {
        "store": str(ground / "a"),
        "label": {**table, "column": "correct"},
        "features": [{"sae": SAE, "pool": ["max"], "beside": ["margin"]}],
        "baselines": [
            "tfidf",
            {"columns": "choice_bytes", **table},
            {"columns": ["margin"], **table},
            {"hidden": ["mean"], "store": str(ground / "b")},
            {"sae": SAE, "pool": ["max"], "store": str(ground / "b")},
        ],
        "split": {"seeds": 2, "folds": 3},
        "bootstrap": 100,
        "out": str(out),
        **changes,
    }


@pytest.fixture(scope="module")
def result(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    return run_study(study_from_mapping(spec_of(ground, tmp_path_factory.mktemp("out")), ground))


def test_every_kind_of_predictor_meets_the_same_documents(result: StudyResult) -> None:
    assert [one.method for one in result.summary] == [
        "majority",
        "tfidf",
        "choice_bytes",
        "margin",
        "b/hidden_mean",
        f"b/{SAE}:max",
        f"{SAE}:max",
        f"{SAE}:max+margin",
    ]
    assert {row.n_test for row in result.rows} == {len(result.splits[0].test)}
    assert len(result.data.y) == N and result.data.classes == ("false", "true")


def test_numbers_and_another_stores_rows_are_joined_by_id(result: StudyResult, ground: Path) -> None:
    table = pl.read_parquet(ground / "labels.parquet")
    margin = dict(zip(table["id"], table["margin"], strict=True))
    assert result.data.numbers["margin"][:, 0].tolist() == [margin[i] for i in result.data.doc_id]
    f1 = {one.method: one.macro_f1.value for one in result.summary}
    assert f1[f"{SAE}:max"] > 0.8 > f1["choice_bytes"] and f1["b/hidden_mean"] < 0.75


def test_the_verdict_says_what_the_features_add(result: StudyResult) -> None:
    said = format_study(result)
    summary = json.loads(Path(result.paths["summary"]).read_text(encoding="utf-8"))
    assert "SAE features of a predict 'correct' better than" in said
    assert "features of b" in said and "Beside margin they add something" in said
    assert " ".join(summary["added"]) in " ".join(said.split())
    page = study_report(result.spec.out).decode()
    assert "predict &#39;correct&#39; better than" in page


def test_features_beside_numbers_stand_for_no_family(result: StudyResult) -> None:
    for family in result.selected.values():
        assert not any("+margin" in name for name in family.members)
    questions = {c.question for c in result.comparisons}
    assert "What SAE features add to margin" in questions
    (comparison,) = (c for c in result.comparisons if c.question == "What SAE features add to margin")
    assert (comparison.a, comparison.b) == ("margin and SAE features", "margin")


def test_other_numbers_are_computed_anew_and_the_rest_is_kept(result: StudyResult, ground: Path) -> None:
    table = pl.read_parquet(ground / "labels.parquet")
    other = ground / "other.parquet"
    table.with_columns(margin=-2 * pl.col("correct").cast(pl.Float64)).write_parquet(other)
    spec = spec_of(ground, Path(result.spec.out))
    spec["baselines"][2] = {"columns": ["margin"], "path": str(other), "id": "id"}
    fresh: list[str] = []
    again = run_study(study_from_mapping(spec, ground), lambda _done, _of, name: fresh.append(name), overwrite=True)
    assert fresh == ["done before", "margin", f"{SAE}:max+margin"]
    assert next(one for one in again.summary if one.method == "margin").macro_f1.value == 1.0


def test_a_document_without_a_number_takes_no_part(ground: Path, tmp_path: Path) -> None:
    holes = pl.read_parquet(ground / "labels.parquet").with_columns(
        margin=pl.when(pl.int_range(pl.len()) < 7).then(None).otherwise(pl.col("margin"))
    )
    holes.write_parquet(tmp_path / "holes.parquet")
    numbers = {"columns": ["margin"], "path": str(tmp_path / "holes.parquet"), "id": "id"}
    spec = spec_of(ground, tmp_path / "out", baselines=[numbers], features=[], split={"seeds": 1, "folds": 2})
    found = run_study(study_from_mapping(spec, ground))
    assert len(found.data.y) == N - 7 and found.data.left_out["no_number"] == 7


def test_two_stores_of_one_name_keep_results_of_their_own(tmp_path: Path) -> None:
    """Of `qwen/store` and `llama/store`, the first tells the label and the second does not."""
    documents = make_documents(120, strength=0.95, seed=3)
    own = build_store(tmp_path / "own", documents)
    good = build_store(tmp_path / "qwen" / "store", documents)
    build_store(tmp_path / "llama" / "store", make_documents(120, strength=0.5, seed=4))
    bad = str(tmp_path / "llama" / "store")
    spec = make_spec(
        own,
        tmp_path / "out",
        features=[{"sae": SAE, "store": uri, "binarize": [0.1234567, 0.1234568]} for uri in (good, bad)],
        baselines=[{"hidden": ["mean"], "store": uri} for uri in (good, bad)],
    )
    found = run_study(spec)
    f1 = {one.method: one.macro_f1.value for one in found.summary}
    assert len(f1) == len(found.summary) == 7
    assert f1["qwen/store/hidden_mean"] > f1["llama/store/hidden_mean"] + 0.1
    assert f1[f"qwen/store/{SAE}:max>0.1234567"] > f1[f"llama/store/{SAE}:max>0.1234567"] + 0.1
    levels = {c.question: {c.a, c.b} for c in found.comparisons if c.question[:9] in ("Which SAE", "Does bina")}
    assert levels == {
        "Which SAE": {f"qwen/store/{SAE}", f"llama/store/{SAE}"},
        "Does binarising help": {"> 0.1234567", "> 0.1234568"},
    }
    hidden = {c.b for c in found.comparisons if c.question.startswith("SAE features against hidden")}
    assert hidden == {"hidden states of qwen/store", "hidden states of llama/store"}
    private = study_report(spec.out, private=True).decode()
    assert "hidden states of qwen/store" in private and str(tmp_path) not in private


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baselines": [{"sae": SAE}]}, "is a baseline where its features are another store's"),
        ({"baselines": [{"columns": ["margin"], "path": "t.parquet"}]}, "a table needs both 'path' and 'id'"),
        ({"baselines": [{"columns": ["margin"], "name": "tfidf"}]}, "cannot name numbers"),
        ({"baselines": [{"hidden": ["max"], "store": "b"}]}, "hidden"),
        ({"baselines": [{"hidden": ["mean"]}]}, "'baselines.0.store' is missing"),
        ({"baselines": [{"columns": "m", "nam": "x"}]}, "unknown key 'baselines.0.nam'; did you mean 'name'"),
        ({"baselines": [{"sae": SAE, "store": "b", "pool": "maxx"}]}, "'baselines.0.pool': unknown pooling 'maxx'"),
        (
            {"features": [{"sae": SAE, "beside": ["length"]}], "baselines": []},
            "no numbers 'length' among the baselines",
        ),
        ({"features": [{"sae": SAE, "binarize": "learnt", "beside": ["m"]}]}, "'beside' goes with all features"),
    ],
)
def test_what_cannot_be_a_baseline_is_refused(changes: dict[str, Any], said: str, ground: Path) -> None:
    with pytest.raises(StudyError) as caught:
        study_from_mapping(spec_of(ground, ground / "out", **changes), ground)
    assert said in str(caught.value)


def test_a_column_that_holds_no_numbers_is_named(ground: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"column 'text' of text holds .* which is no number"):
        run_study(make_spec(str(ground / "a"), tmp_path / "out", baselines=[{"columns": ["text"]}]))
    with pytest.raises(StudyError, match="keeps no column 'lenght'"):
        run_study(make_spec(str(ground / "a"), tmp_path / "out", baselines=[{"columns": ["lenght"]}]))
