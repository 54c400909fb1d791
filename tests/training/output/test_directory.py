"""One directory, one study: it grows there, and another one is refused before anything of it is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from featurestore.errors import StudyError
from tests.training.conftest import make_spec
from tests.training.stores import SAE, build_store, make_documents
from training.evaluation import MethodOutcome, SourceTask
from training.spec import load_study
from training.study import run_study

SMALL: dict[str, Any] = {
    "features": [{"sae": SAE, "pool": "max"}],
    "baselines": [],
    "split": {"seeds": 2, "folds": 2},
    "bootstrap": 100,
}


def nothing(tasks: Sequence[SourceTask]) -> Iterator[MethodOutcome]:
    """An executor that must not be asked."""
    raise AssertionError("computed something")
    yield


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and the study `out` of it."""
    folder = tmp_path_factory.mktemp("place")
    documents = make_documents(80)
    documents.extra = {
        "lang": ["de" if i % 3 else "en" for i in range(80)],
        "topic": [f"t{i % 4 // 2}" for i in range(80)],
    }
    run_study(make_spec(build_store(folder / "store", documents), folder / "out", **SMALL))
    return folder


@pytest.fixture
def ground(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "ground"))


def study(ground: Path, overwrite: bool = False, executor: Any = None, **changes: Any) -> Any:
    spec = make_spec(str(ground / changes.pop("store", "store")), ground / "out", **{**SMALL, **changes})
    return run_study(spec, overwrite=overwrite, **({} if executor is None else {"executor": executor}))


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"label": "lang"}, "label label -> lang"),
        ({"split": {"seeds": 3, "folds": 2}}, "split.seeds 2 -> 3"),
        ({"split": {"seeds": 2, "folds": 3}}, "split.folds 2 -> 3"),
        ({"split": {"seeds": 2, "folds": 2, "test": 0.3}}, "split.test 0.2 -> 0.3"),
        ({"split": {"seeds": 2, "folds": 2, "group": "group"}}, r"split.group \(none\) -> group"),
        ({"split": {"seeds": 2, "folds": 2, "column": {"name": "lang", "test": "en"}}}, r"split.column \(none\) -> "),
    ],
)
def test_another_study_in_its_place_is_refused_with_the_difference_before_anything_is_computed(
    ground: Path, changes: dict[str, Any], difference: str
) -> None:
    before = contents(ground / "out")
    with pytest.raises(
        StudyError, match=f"out holds another study: {difference}.*; give the study another 'out', or .*--overwrite"
    ):
        study(ground, executor=nothing, **changes)
    assert contents(ground / "out") == before


def test_another_store_is_another_study_and_the_same_one_elsewhere_is_not(ground: Path) -> None:
    build_store(ground / "posts", make_documents(80, seed=1))
    with pytest.raises(StudyError, match=r"another study: store \S+/store \(\w{8}\) -> \S+/posts \(\w{8}\); give"):
        study(ground, executor=nothing, store="posts")
    (ground / "store").rename(ground / "moved")
    study(ground, store="moved")


def test_more_features_baselines_and_probes_go_on(ground: Path) -> None:
    first_cells = set(contents(ground / "out" / "cells"))
    study(
        ground,
        features=[{"sae": SAE, "pool": ["max", "sum"]}],
        baselines=["hidden_mean"],
        probes=["logistic_l2", "tree"],
    )
    assert first_cells < set(contents(ground / "out" / "cells"))
    study(ground, bootstrap=200)


def test_regimes_are_added_and_not_taken_away(ground: Path) -> None:
    study(ground, regimes={"train_sizes": [20]})
    study(ground, regimes={"train_sizes": [20, 30]})
    with pytest.raises(StudyError, match=r"another study: regime n=30 -> \(none\)"):
        study(ground, executor=nothing, regimes={"train_sizes": [20]})
    study(ground, overwrite=True, regimes={"train_sizes": [20]})
    assert set(pl.read_parquet(ground / "out/split.parquet")["condition"]) == {"", "n=20"}


def test_classes_that_changed_in_a_table_are_another_study(ground: Path) -> None:
    table = ground / "labels.csv"
    ids = [f"doc-{i}" for i in range(80)]
    label = {"path": str(table), "id": "id", "column": "class"}
    pl.DataFrame({"id": ids, "class": ["ham", "spam"] * 40}).write_csv(table)
    study(ground, overwrite=True, label=label)
    pl.DataFrame({"id": ids, "class": ["spam", "ham", *["ham", "spam"] * 39]}).write_csv(table)
    with pytest.raises(StudyError, match="another study: label of 2 of 80 documents"):
        study(ground, executor=nothing, label=label)
    pl.DataFrame({"id": ids[:78], "class": ["ham", "spam"] * 39}).write_csv(table)
    with pytest.raises(StudyError, match=r"another study: documents 80 -> 78 \(2 gone, 0 new\)"):
        study(ground, executor=nothing, label=label)


def test_a_split_that_would_be_drawn_otherwise_is_another_study(ground: Path) -> None:
    """As another version may draw it."""
    path = ground / "out/split.parquet"
    table = pq.read_table(path)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    test = pl.col("role") == "test"
    swapped = frame.with_columns(
        role=pl.when(test).then(pl.lit("train")).otherwise("role"), fold=pl.when(test).then(0).otherwise("fold")
    )
    pq.write_table(
        swapped.to_arrow().cast(table.schema.remove_metadata()).replace_schema_metadata(table.schema.metadata), path
    )
    with pytest.raises(StudyError, match=r"another study: side of the split of \d+ of 80 documents"):
        study(ground, executor=nothing)


def test_whoever_insists_replaces_the_results_and_leaves_none_of_the_old_ones(ground: Path) -> None:
    def stopped(tasks: Sequence[SourceTask]) -> Iterator[MethodOutcome]:
        raise KeyboardInterrupt
        yield

    (ground / "out/evidence").mkdir()
    (ground / "out/evidence/a-b.json").write_text("{}")
    (ground / "out/report.html").write_text("of the other study")
    with pytest.raises(KeyboardInterrupt):
        study(ground, overwrite=True, label="lang", executor=stopped)
    assert {path.name for path in (ground / "out").iterdir()} == {"cells", "split.parquet"}
    study(ground, label="lang")
    assert json.loads((ground / "out/results.json").read_text())["spec"]["label"] == "lang"


def test_a_study_whose_text_becomes_private_leaves_no_evidence_of_before(ground: Path) -> None:
    (ground / "out/evidence").mkdir()
    (ground / "out/evidence/a-b.json").write_text("a text")
    study(ground)
    assert (ground / "out/evidence").is_dir()
    study(ground, text="private")
    assert not (ground / "out/evidence").exists()


def test_a_study_that_was_stopped_holds_its_place_too(ground: Path) -> None:
    out = ground / "out"
    for name in ("results.json", "results.parquet", "predictions.parquet"):
        (out / name).unlink()
    with pytest.raises(StudyError, match="another study: label label -> lang"):
        study(ground, executor=nothing, label="lang")


def test_files_of_others_are_not_replaced_either(ground: Path) -> None:
    shutil.rmtree(ground / "out")
    (ground / "out").mkdir()
    (ground / "out/notes.txt").write_text("mine")
    study(ground)  # what is not in the way stays
    assert (ground / "out/notes.txt").read_text() == "mine"
    for name in ("results.parquet", "split.parquet"):
        shutil.rmtree(ground / "out")
        (ground / "out").mkdir()
        pl.DataFrame({"a": [1]}).write_parquet(ground / "out" / name)
        with pytest.raises(
            StudyError, match=rf"out holds a?\s?'{name}'.* of no study|out holds '{name}', and no study"
        ):
            study(ground, executor=nothing)
    study(ground, overwrite=True)


def test_where_results_go_is_named_after_the_studys_file(tmp_path: Path) -> None:
    text = "store: s\nlabel: label\nbaselines: [tfidf]\n"
    for name, out in (("toxicity.yaml", "toxicity-study"), ("study.yaml", "study"), ("my-study.yml", "my-study"),
                      ("study", "study-study")):  # fmt: skip
        (tmp_path / name).write_text(text)
        assert load_study(tmp_path / name).out == str(tmp_path / out)
    (tmp_path / "a.yaml").write_text(f"{text}out: there\n")
    assert load_study(tmp_path / "a.yaml").out == str(tmp_path / "there")


def test_a_place_that_is_no_directory_is_one_sentence(ground: Path) -> None:
    (ground / "file").write_text("mine")
    for out in ("file", "file/below"):
        with pytest.raises(StudyError, match=rf"out: \S+/{out} cannot be written \(.*\); choose another directory"):
            run_study(make_spec(str(ground / "store"), ground / out, **SMALL), executor=nothing)
