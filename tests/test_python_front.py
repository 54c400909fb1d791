"""`import sparsemill as sm`: what the commands do, from Python, with frames and pages for notebooks."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

import sparsemill as sm
from featurestore.base.live import LiveLine
from sparsemill import live
from sparsemill.quiet_calls import of_stage_one
from tests.featurestore.stores import write_store
from tests.ray_jobs.jobs import job_mapping, write_corpus, write_models
from tests.training.stores import SAE, build_store, make_documents
from training.spec import study_from_mapping

ROOT = Path(__file__).parent.parent


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=120)


def test_importing_it_loads_nothing_else(tmp_path: Path) -> None:
    code = "import sys; before = set(sys.modules); import sparsemill; print(*(set(sys.modules) - before))"
    loaded = {name.split(".")[0] for name in run_python(code, tmp_path).stdout.split()}
    assert loaded - sys.stdlib_module_names == {"sparsemill"}


def test_every_public_name_is_there_has_a_docstring_and_is_known_to_type_checkers() -> None:
    for name in sm.__all__:
        assert (getattr(sm, name).__doc__ or "").strip(), name
    tree = ast.parse((ROOT / "sparsemill" / "__init__.py").read_text(encoding="utf-8"))
    imported = {
        (alias.name, node.module)
        for block in ast.walk(tree)
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    command_line = {(name, "sparsemill.commands") for name in ("COMMANDS", "command_parser", "main")}
    assert imported - command_line == {(name, sm._HOME[name]) for name in sm.__all__}
    with pytest.raises(AttributeError, match="has no attribute 'extrct'"):
        sm.extrct  # noqa: B018


def test_a_folder_of_somebody_else_under_one_of_our_names_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("")
    code = "import sparsemill as sm\ntry:\n    sm.open_study\nexcept ImportError as error:\n    print(error)"
    assert f"Python finds {tmp_path}/training under the name 'training'" in run_python(code, tmp_path).stdout
    command = [sys.executable, "-m", "sparsemill", "status", "store"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "rename that folder" in done.stderr


def test_a_package_that_is_missing_is_named_with_its_installation_and_the_rest_works(tmp_path: Path) -> None:
    build_store(tmp_path / "store", make_documents(20))
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('ray', 'torch', 'transformers', 'sae_lens'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
import sparsemill as sm
print(sm.open("store"))
job = {"corpus": {"path": "c.jsonl"}, "model": {"name": "m"}, "saes": [{"path": "s", "name": "s"}], "store": "x"}
try:
    sm.prepare(job)
except ModuleNotFoundError as error:
    print(error)
"""
    said = run_python(code, tmp_path).stdout
    assert said.startswith("FeatureStore('store': 20 documents; ")
    assert "sparsemill.prepare needs the package 'torch'; install it with: pip install " in said


def test_a_job_is_a_path_a_mapping_or_a_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsemill.jobs import job_of

    monkeypatch.chdir(tmp_path)
    mapping: dict[str, Any] = {
        "corpus": {"path": "c.jsonl"},
        "model": {"name": "google/gemma-2-2b"},
        "saes": [{"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_12/width_16k/canonical"}],
        "store": "store",
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(mapping))
    spec = job_of(mapping)
    assert spec == job_of("job.yaml") == job_of(tmp_path / "job.yaml") == job_of(spec)
    assert spec.store == str(tmp_path / "store")
    with pytest.raises(sm.UsageError, match=r"^job: .*'stoer'.*did you mean 'store'"):
        job_of({**mapping, "stoer": "x"})


JOB: dict[str, Any] = {
    "corpus": {"path": "c.jsonl"},
    "model": {"name": "m"},
    "saes": [{"path": "s", "name": "s"}],
    "store": "x",
}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: sm.plan(None), "a job that is no mapping must be a path, not NoneType"),
        (lambda: sm.prepare(3), "a job that is no mapping must be a path, not int"),
        (lambda: sm.label(None), "a label job that is no mapping must be a path, not NoneType"),
        (lambda: sm.study(4), "a study that is no mapping must be a path, not int"),
        (lambda: sm.open(["store"]), "a store must be a path, not list"),
        (lambda: sm.open_study(None), "a study must be a path, not NoneType"),
        (lambda: sm.tokens(None, ["a"]), "a store must be a path, not NoneType"),
        (lambda: sm.names(3), "a store must be a path, not int"),
        (lambda: sm.report(None), "what to report must be a path, not NoneType"),
        (lambda: sm.predict({}, text="a"), "a model must be a path, not dict"),
        (lambda: sm.predict("m.json", text="a", explain=-1), "explain must be a whole number of at least 0, not -1"),
        (lambda: sm.plan(JOB, rate=-5), "rate must be a number above 0, not -5"),
        (lambda: sm.plan(JOB, price=0), "price must be a number above 0, not 0"),
        (
            lambda: sm.plan(JOB, rates="r.yaml"),
            "rates= says what each kind of hardware does; choose one of them with hardware=",
        ),
        (
            lambda: sm.predict("m.json", text="a", id_column="id"),
            "text_column= and id_column= name columns of input=, which is not given; leave them out",
        ),
        (lambda: sm.align({"a": "store"}), "align: 'a' must be an open store, not str; open it first"),
    ],
)
def test_an_argument_of_another_kind_is_one_sentence(call: Any, said: str) -> None:
    with pytest.raises(sm.UsageError) as raised:
        call()
    assert str(raised.value) == said


def test_libraries_are_quiet_for_as_long_as_a_call_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")

    @of_stage_one
    def call() -> str:
        return os.environ["TQDM_DISABLE"]

    assert call() == "1"
    assert "TQDM_DISABLE" not in os.environ and os.environ["TRANSFORMERS_VERBOSITY"] == "info"


def test_a_number_of_workers_and_features_is_checked_before_anything_runs(tmp_path: Path) -> None:
    job = {
        "corpus": {"path": "c.jsonl"},
        "model": {"name": "m"},
        "saes": [{"path": "s", "name": "s"}],
        "store": str(tmp_path / "none"),
    }
    for workers in (0, "2", True):
        with pytest.raises(sm.UsageError, match="workers must be a whole number of at least 1"):
            sm.extract(job, workers=workers)
    store = tmp_path / "store"
    write_store(store)
    with pytest.raises(sm.UsageError, match="features: must be a feature's number, or SAE:NUMBER, not 'l12:x'"):
        sm.tokens(str(store), ["a"], ["l12:x"])
    with pytest.raises(sm.UsageError, match="binarize must be a threshold >= 0, not 'x'"):
        sm.open(store).matrix("l12_64", binarize="x")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("front")
    build_store(folder / "store", make_documents(60))
    return folder


def spec_of(place: Path) -> dict[str, Any]:
    return {
        "store": str(place / "store"),
        "label": "label",
        "features": [{"sae": SAE, "pool": ["max", "sum"]}],
        "baselines": ["majority", "hidden_mean"],
        "split": {"seeds": 1, "folds": 2},
        "bootstrap": 100,
        "out": str(place / "out"),
    }


@pytest.fixture(scope="module")
def study(place: Path) -> sm.Study:
    return sm.study(spec_of(place), evidence=False)


def test_a_study_is_frames_of_its_own_files_and_done_once(place: Path, study: sm.Study) -> None:
    written = json.loads((place / "out" / "results.json").read_text())
    methods = study.methods()
    assert methods["kind"].to_list()[:2] == ["selected", "selected"]
    rest = methods.filter(pl.col("kind") != "selected")
    assert rest["method"].to_list() == [one["method"] for one in written["methods"]]
    for name in ("macro_f1", "accuracy", "auroc"):
        assert rest[f"{name}_low"].to_list() == [one[name]["low"] for one in written["methods"]]
    assert study.comparisons()["p_adjusted"].to_list() == [one["p_adjusted"] for one in written["comparisons"]]
    assert study.splits().equals(pl.read_parquet(place / "out" / "results.parquet"))
    assert study.predictions().height == len(written["methods"]) * written["split"]["test_documents"][0]
    assert study.features().height and study.features()["name"][0].startswith(SAE)
    before = (place / "out" / "results.json").stat().st_mtime_ns
    again = sm.study(study_from_mapping(spec_of(place), place), evidence=False)
    assert (place / "out" / "cells").is_dir() and before <= (place / "out" / "results.json").stat().st_mtime_ns
    assert again.methods().equals(methods) and sm.open_study(place / "out").summary == study.summary
    assert Path(study.report).read_bytes().startswith(b"<!doctype html>")


def test_a_notebook_shows_the_verdict_and_a_dot_for_every_method(study: sm.Study) -> None:
    page = study._repr_html_()
    assert page.count("<circle") == len(study.summary["methods"]) + 2 and page.count("<svg") == 1
    assert "class=" not in page and "<style" not in page and "<script" not in page
    assert 'aria-label="Macro F1 of ' in page and f"{SAE}:max" in page
    assert repr(study).startswith("Study(") and "\n" not in repr(study) and "SAE features 0." in repr(study)


def test_a_notebook_shows_the_schema_of_a_store_and_escapes_its_texts(tmp_path: Path) -> None:
    documents = make_documents(20)
    documents.text[0] = "<script>alert(1)</script>\u202e & more"
    store = sm.open(build_store(tmp_path / "<b>", documents))
    page = store._repr_html_()
    assert f"{SAE}: 96 features, pooled by max, sum, count" in page and "resid_post_1__hidden_mean" in page
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and "\\u202e &amp; more" in page
    assert "<b>: 20" not in page and "label (string)" in page and page.count("<tr>") == 4 + 1 + 5
    assert repr(store).count("\n") == 0


def test_predictions_of_a_store_are_the_table_of_the_command(
    place: Path, study: sm.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="are those of training documents"):
        found = sm.predict(study.models["sae"], store=place / "store", explain=2)
    out = tmp_path / "p.parquet"
    command = ["predict", study.models["sae"], "--store", str(place / "store"), "--explain", "2", "--out", str(out)]
    assert sm.main(command) == 0
    written = pl.read_parquet(out)
    assert found.equals(written)
    with pytest.raises(sm.UsageError, match="give one of text=, input= and store="):
        sm.predict(study.models["sae"])
    capsys.readouterr()


def test_a_report_is_written_where_it_is_asked_for(place: Path, study: sm.Study, tmp_path: Path) -> None:
    out = sm.report(study, tmp_path / "r.html", private=True)
    assert b"doc-" not in Path(out).read_bytes()
    with pytest.raises(sm.UsageError, match=r"r\.html"):
        sm.report(study, out)
    assert Path(sm.report(sm.open(place / "store"), tmp_path / "s.html")).stat().st_size > 1000


def test_a_line_that_moves_is_one_line_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Screen:
        def update(self, data: dict[str, str], raw: bool) -> None:
            shown.append(data["text/plain"])

    class Display:
        @staticmethod
        def display(data: dict[str, str], raw: bool, display_id: bool) -> Screen:
            shown.append(data["text/plain"])
            return Screen()

    monkeypatch.setattr(live, "import_module", lambda name: Display)
    line = LiveLine(live.NotebookStream(), True, iter(range(9)).__next__)
    line.note("starting Ray")
    for done in range(3):
        line.show(lambda done=done: f"{done} of 2")
    assert shown[0] == "starting Ray" and shown[-1] == "starting Ray\n2 of 2"
    line.note("done")
    line.close()
    assert shown[-1] == "starting Ray\ndone"
    assert live.stream() is sys.stderr or isinstance(live.stream(), io.TextIOBase)


@pytest.mark.slow
def test_a_job_from_python_writes_the_parts_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    models, corpus = write_models(tmp_path), write_corpus(tmp_path / "c.jsonl", 40)
    job = job_mapping(models, corpus, tmp_path / "here", corpus={"keep": ["text", "label"]})
    plan = sm.plan(job)
    assert plan.documents == plan.facts["documents"] == 40 and plan.missing_units == plan.units == 2
    assert repr(plan).startswith("Plan(40 documents, about ") and "<th" in plan._repr_html_()
    store = sm.extract(job)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**job, "store": "there"}))
    assert sm.main(["extract", str(tmp_path / "job.yaml")]) == 0
    for part in (tmp_path / "here" / "parts").glob("*.parquet"):
        assert part.read_bytes() == (tmp_path / "there" / "parts" / part.name).read_bytes()
    assert sm.plan(job).missing_units == 0
    X, ids = store.matrix("tiny", pool="max")
    feature = int(X[0].argmax())
    evidence = sm.tokens(store, str(ids[0]), feature)
    several = (X[0].argmax(),), ("tiny", feature), (f"tiny:{feature}", str(feature))
    assert {repr(sm.tokens(store, str(ids[0]), one)) for one in several} == {repr(evidence)}
    assert sm.tokens(store, str(ids[0]), ()).frame().height
    frame = evidence.frame()
    assert set(frame["feature"]) == {feature} and frame["doc_id"].unique().to_list() == [str(ids[0])]
    assert frame["value"].max() == pytest.approx(X[0, feature], rel=0.01)  # stored with 8 significant bits
    assert evidence._repr_html_().count("background:") == frame["value"].gt(0).sum()
    assert sm.names(store).is_empty()
