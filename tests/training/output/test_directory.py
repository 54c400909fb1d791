"""One directory, one study: it grows there, and another one is refused before anything of it is lost."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from featurestore.errors import StudyError
from tests.training.conftest import make_spec
from tests.training.stores import SAE, Documents, build_store, make_documents
from training.evaluation import MethodOutcome, SourceTask
from training.output.another_study import KINDS
from training.spec import StudySpec, load_study
from training.study import run_study

SMALL: dict[str, Any] = {
    "features": [{"sae": SAE, "pool": "max"}],
    "baselines": [],
    "split": {"seeds": 2, "folds": 2},
    "bootstrap": 100,
}


def nothing(tasks: Sequence[SourceTask]) -> Iterator[MethodOutcome]:
    """An executor that must not be asked."""
    assert not tasks, "computed something"
    yield from ()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and the study `out` of it."""
    folder = tmp_path_factory.mktemp("place")
    run_study(make_spec(build_store(folder / "store", documents_of(0)), folder / "out", **SMALL))
    return folder


def documents_of(seed: int) -> Documents:
    documents = make_documents(80, seed=seed)
    documents.extra = {
        "lang": ["de" if i % 3 else "en" for i in range(80)],
        "topic": [f"t{i % 4 // 2}" for i in range(80)],
    }
    return documents


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


def test_more_features_baselines_and_probes_go_on_where_no_model_file_becomes_another(ground: Path) -> None:
    first_cells = set(contents(ground / "out" / "cells"))
    more: dict[str, Any] = {"features": [{"sae": SAE, "pool": ["max", "count"]}], "baselines": ["hidden_mean"]}
    study(ground, **more)
    assert first_cells < set(contents(ground / "out" / "cells"))
    study(ground, **{**more, "bootstrap": 200}, executor=nothing)


def test_a_model_file_that_would_become_another_is_kept_until_somebody_insists(ground: Path) -> None:
    grown: dict[str, Any] = {"probes": ["logistic_l2", "tree"]}  # validation prefers trees here
    before = contents(ground / "out")
    with pytest.raises(
        StudyError,
        match=r"out/models/sae.json is l1_tiny:max, and would become l1_tiny:max tree, by what was added to the study; "
        "nothing is replaced, and what was computed is kept; give the study another 'out', or replace it with --over",
    ):
        study(ground, **grown)
    after = contents(ground / "out")
    del before["split.parquet"]  # whose footer says where the store lies, which was moved
    assert {name: after[name] for name in before} == before
    study(ground, executor=nothing)  # the study that is there is itself still
    study(ground, overwrite=True, executor=nothing, **grown)
    assert json.loads((ground / "out/models/sae.json").read_text())["method"] == f"{SAE}:max tree"


def test_a_model_file_of_no_method_any_more_is_kept_too(ground: Path) -> None:
    study(ground, baselines=["hidden_mean"])
    model = ground / "out/models/baseline.json"
    written = json.loads(model.read_text()) | {"method": "hidden_last"}
    model.write_text(json.dumps(written))
    with pytest.raises(StudyError, match=r"models/baseline.json is hidden_last, and would become hidden_mean, by "):
        study(ground, baselines=["hidden_mean"])
    assert json.loads(model.read_text())["method"] == "hidden_last"


WHOLE: dict[str, Any] = {
    "features": [{"sae": SAE, "pool": ["max", "sum"]}],
    "baselines": ["hidden_mean", "tfidf"],
    "probes": ["logistic_l2"],
    "split": {"seeds": 2, "folds": 2, "duplicates": "ignore"},
    "regimes": {"train_sizes": [20]},
    "transfer": {"by": "topic"},
    "bootstrap": 100,
}
POINT = {"class": "spam", "precision": 0.8}
KEYS: dict[str, list[tuple[dict[str, Any], str | None]]] = {
    "store": [({"store": "posts"}, r"store \S+/store \(")],
    "label": [({"label": "lang"}, "label label -> lang")],
    "text": [({"text": "lang"}, "method tfidf is made of something else"), ({"text": "private"}, None)],
    "features": [
        ({"features": [{"sae": SAE, "pool": "sum"}]}, f"method {SAE}:max -> \\(none\\)"),
        ({"features": [{"sae": SAE, "pool": ["max", "sum"], "control": True}]}, f"method {SAE}:max is made of some"),
        ({"features": [{"sae": SAE, "pool": ["max", "sum"], "min_documents": 2}]}, f"method {SAE}:max -> "),
        ({"features": [{"sae": SAE, "pool": ["sum", "max"]}]}, None),
        ({"features": [{"sae": SAE, "pool": ["max", "sum"], "scale": ["max_abs", "sqrt"]}]}, None),
    ],
    "baselines": [
        ({"baselines": ["tfidf"]}, r"method hidden_mean -> \(none\)"),
        ({"baselines": ["hidden_mean", "tfidf", "majority", "char_ngrams"]}, None),
    ],
    "probes": [
        ({"probes": ["softmax"]}, r"method tfidf -> \(none\); method hidden_mean -> "),
        ({"probes": ["logistic_l2", "softmax"]}, None),
    ],
    "split": [({"split": {**WHOLE["split"], "test": 0.3}}, "split.test 0.2 -> 0.3")],
    "regimes": [
        ({"regimes": {"train_sizes": [20, 30]}}, None),
        ({"regimes": {}}, r"regime n=20 -> \(none\)"),
    ],
    "transfer": [
        ({"transfer": {"by": "topic"}}, None),
        ({"transfer": {"by": "topic", "train": "t0"}}, r"regime train=t1 -> \(none\)"),
    ],
    "screen": [({"screen": 10}, r"screen \(none\) -> 10")],
    "bootstrap": [({"bootstrap": 200}, None)],
    "class_weight": [({"class_weight": "balanced"}, r"class_weight \(none\) -> balanced")],
    "by": [({"by": ["lang"]}, None)],
    "operating_point": [({"operating_point": POINT}, r"operating_point \(none\) -> class spam, precision 0.8")],
    "calibrate": [({"calibrate": False}, "calibrate True -> False")],
    "refit": [({"refit": True}, "refit False -> True")],
    "out": [({"out": "elsewhere"}, None)],
}


@pytest.fixture(scope="module")
def whole(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two stores and a study with all kinds of methods."""
    folder = Path(shutil.copytree(first, tmp_path_factory.mktemp("whole") / "ground"))
    shutil.rmtree(folder / "out")
    build_store(folder / "posts", documents_of(1), units=2)
    study(folder, **WHOLE)
    return folder


def test_the_table_of_what_makes_another_study_has_every_key() -> None:
    assert KEYS.keys() == StudySpec.model_fields.keys()
    kinds = {key: kind for kind, keys in KINDS.items() for key in keys}
    assert kinds.keys() == KEYS.keys()
    page = (Path(__file__).parents[3] / "docs/promises.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    told = {key: kind.strip() for keys, kind in rows for key in re.findall("`(.+?)`", keys)}
    assert told == kinds
    for key, changes in KEYS.items():
        refused = {said is not None for _, said in changes}
        expected = {"always": {True}, "once finished": {True}, "never": {False}}
        assert refused == expected.get(kinds[key], {True, False})


@pytest.mark.parametrize(("change", "said"), [one for changes in KEYS.values() for one in changes], ids=str)
def test_each_key_of_a_study_replaces_no_model_file_unasked(
    whole: Path, tmp_path: Path, change: dict[str, Any], said: str | None
) -> None:
    ground = Path(shutil.copytree(whole, tmp_path / "ground"))
    before = contents(ground / "out")
    if said is not None:
        with pytest.raises(StudyError, match=f"out holds another study: {said}.*, or replace it with --overwrite"):
            study(ground, executor=nothing, **{**WHOLE, **change})
        assert contents(ground / "out") == before
        study(ground, overwrite=True, **{**WHOLE, **change})
        return
    try:
        if "out" in change:
            run_study(make_spec(str(ground / "store"), ground / change["out"], **WHOLE))
        else:
            study(ground, **{**WHOLE, **change})
    except StudyError as exc:  # of what was added, something validates better
        assert "models/sae.json is l1_tiny:max, and would become " in str(exc)
    after = contents(ground / "out")
    for name in ("models/sae.safetensors", "models/baseline.safetensors"):
        assert (name in before) == (name in after) and before.get(name) == after.get(name)


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
