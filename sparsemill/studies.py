"""Stage 2 from Python: run a study and look at it, write a report, classify with a trained model."""

from __future__ import annotations

import argparse
import io
import os
import warnings as python_warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from featurestore.base.live import LiveLine
from featurestore.errors import UsageError
from featurestore.reader import FeatureStore
from featurestore.storage.files import list_files, reached, read_bytes, shown
from sparsemill import stages
from sparsemill.live import moving, stream
from sparsemill.quiet_calls import count_of, of_stage_one, path_of
from training.report.study_files import StudyFiles, read_study
from training.report.writing import write_report
from training.results.selection import FAMILIES
from training.spec import StudySpec, load_study, study_from_mapping

if TYPE_CHECKING:
    import polars as pl

    from featurestore.models.model import Model
    from featurestore.models.predict import Predicted

AsStudy: TypeAlias = "StudySpec | Mapping[str, Any] | str | os.PathLike[str]"

_INTERVALS = ("macro_f1", "accuracy", "auroc")
_SCORES = ("auprc", "brier", "ece", "validation_macro_f1")


class Study:
    """A finished study: its figures as polars frames (`.to_pandas()` makes them pandas'), its models, its report.

    Made by `study` and `open_study`. It is read from the study's directory, so it is the same wherever that lies.

    Attributes:
        place: The directory or URL.
        summary: All figures, as `results.json` has them.
    """

    def __init__(self, files: StudyFiles) -> None:
        """Use `study` or `open_study`."""
        self._files = files
        self.place = files.uri
        self.summary: Mapping[str, Any] = files.summary

    def methods(self) -> pl.DataFrame:
        """A row for each method: `method`, `kind`, scores with `_low` and `_high` of their intervals, how often chosen.

        Families with the member that validation chose in each split stand first, as kind "selected": "SAE, selected"
        and "baseline, selected".
        """
        import polars as pl

        families = [{**one, "method": FAMILIES[family]} for family, one in self.summary["selected"].items()]
        return pl.DataFrame([_scores(one) for one in (*families, *self.summary["methods"])], infer_schema_length=None)

    def comparisons(self) -> pl.DataFrame:
        """A row for each corrected comparison: `a`, `b`, their macro F1, the `difference` with interval, p, `shown`."""
        import polars as pl

        rows = [
            {
                "question": one["question"],
                "a": one["a"],
                "b": one["b"],
                "a_macro_f1": one.get("a_macro_f1"),
                "b_macro_f1": one.get("b_macro_f1"),
                **_interval("difference", one["difference"]),
                "p_adjusted": one["p_adjusted"],
                "shown": one["shown"],
            }
            for one in self.summary.get("comparisons") or ()
        ]
        return pl.DataFrame(rows, infer_schema_length=None)

    def splits(self) -> pl.DataFrame:
        """A row for each method and split, as `results.parquet` has them."""
        return self._parquet("results.parquet")

    def predictions(self) -> pl.DataFrame:
        """The test predictions of every method, as `predictions.parquet` has them."""
        return self._parquet("predictions.parquet")

    def features(self) -> pl.DataFrame:
        """The features that decide in the SAE model, as `explanation.json` has them; empty without SAE features.

        Each with its `name` and `feature`, the class that it speaks for (`toward`), `coefficient`, `weight` and `share`
        of the decision, and the share of each class' documents in which it fires (`fires_in_CLASS`).
        """
        import polars as pl

        rows = [
            {
                **{key: one[key] for key in ("name", "feature", "toward", "coefficient", "weight", "share")},
                **{f"fires_in_{name}": share for name, share in one["document_frequency"].items()},
            }
            for one in (self._files.explanation or {}).get("features", ())
        ]
        return pl.DataFrame(rows, infer_schema_length=None)

    @property
    def models(self) -> dict[str, str]:
        """Family ("sae", "baseline") -> the model file, for `predict`."""
        return {family: f"{self.place}/models/{family}.json" for family in self._files.models}

    @property
    def report(self) -> str:
        """The study's page, one HTML file."""
        return f"{self.place}/report.html"

    def __repr__(self) -> str:
        from training.report.glance import one_line

        return one_line(self._files, shown(self.place))

    def _repr_html_(self) -> str:
        """As a notebook shows it: the verdict, and a plot of all methods with their intervals."""
        from training.report.glance import page

        return page(self._files, shown(self.place))

    def _parquet(self, name: str) -> pl.DataFrame:
        import polars as pl

        fs, root = reached(self.place)
        if name not in list_files(fs, root):
            raise UsageError(f"{shown(self.place)} holds no {name}; run the study again")
        return pl.read_parquet(io.BytesIO(read_bytes(fs, f"{root}/{name}")))


def _scores(one: Mapping[str, Any]) -> dict[str, Any]:
    intervals = {key: value for name in _INTERVALS for key, value in _interval(name, one[name]).items()}
    rest = {name: one.get(name) for name in _SCORES}
    return {"method": one["method"], "kind": one["kind"], **intervals, **rest, "chosen": one["chosen"]}


def _interval(name: str, interval: Mapping[str, Any]) -> dict[str, Any]:
    return {name: interval["value"], f"{name}_low": interval["low"], f"{name}_high": interval["high"]}


def study_of(study: AsStudy) -> StudySpec:
    """A study however it is given.

    Raises:
        StudyError: It is none; one sentence says which key is wrong.
    """
    if isinstance(study, StudySpec):
        return study
    if isinstance(study, Mapping):
        return study_from_mapping(study, Path.cwd())
    return load_study(path_of(study, "a study that is no mapping"))


def study(
    study: AsStudy,
    *,
    jobs: int | None = None,
    address: str | None = None,
    overwrite: bool = False,
    evidence: bool = True,
) -> Study:
    """Train and compare classifiers, and write figures, models and report to the study's `out`; what is done is kept.

    Args:
        study: The path of STUDY.yaml, a mapping of the same keys (whose `out` is `study` where it names none), or a
            `StudySpec`.
        jobs: Threads; by the size of the study where None.
        address: Ray cluster whose nodes share the work, e.g. "auto"; this process does it where None.
        overwrite: Whether the results and model files of another study in the same place may be replaced.
        evidence: Whether the report shows tokens of its documents, for which the language model is run once more; where
            it is not here, or stage 1 is not installed, the report says so.

    Raises:
        StudyError: It cannot be read, its store cannot answer it, or `out` holds another study.
        StoreError: The store is none, or is incomplete.
    """
    from training.evaluation import run_here
    from training.report.study_page import write_study_report
    from training.study import run_study

    spec = study_of(study)
    line = LiveLine(stream(), moving(), at_once=False)  # a study of seconds has nothing to say in a log

    def progress(done: int, total: int, method: str) -> None:
        line.show(lambda: f"{done}/{total} methods  {method}")

    executor = run_here if address is None else stages.on_ray(address)
    try:
        run_study(spec, progress, jobs, executor, overwrite)
    finally:
        line.close()
    if evidence:
        _gather(spec.out)
    write_study_report(spec.out)
    return open_study(spec.out)


@of_stage_one
def _gather(out: str) -> None:
    stages.gather_evidence(out)


def open_study(place: str | os.PathLike[str]) -> Study:
    """Open a finished study.

    Args:
        place: Its directory or URL.

    Raises:
        StudyError: There is none, or a file of it is damaged.
    """
    return Study(read_study(path_of(place, "a study")))


def report(
    place: str | os.PathLike[str] | Study | FeatureStore,
    out: str | os.PathLike[str] | None = None,
    *,
    private: bool = False,
    overwrite: bool = False,
) -> str:
    """Write a study or a store as one HTML page; its path.

    Args:
        place: A finished study or a store, open or by its place.
        out: Where to; a study's own `report.html`, or `NAME-report.html` here for a store.
        private: Whether texts, ids of documents and names of files stay out.
        overwrite: Whether a file that is there already may be replaced.

    Raises:
        UsageError: There is neither, it is damaged, or something is at `out` already.
    """
    if isinstance(place, Study):
        place = place.place
    elif isinstance(place, FeatureStore):
        place = place.uri
    return write_report(
        path_of(place, "what to report"), None if out is None else path_of(out, "out"), private, overwrite
    )


def predict(
    model: str | os.PathLike[str],
    *,
    text: str | Sequence[str] | None = None,
    input: str | os.PathLike[str] | Sequence[str] | None = None,
    store: FeatureStore | str | os.PathLike[str] | None = None,
    text_column: str | None = None,
    id_column: str | None = None,
    explain: int = 0,
    on_error: str = "undecided",
    accept_truncated: bool = False,
) -> pl.DataFrame:
    """Classify texts, files or the documents of a store with a model that a study wrote.

    Args:
        model: Its `NAME.json`, beside `NAME.safetensors`; `Study.models` has them.
        text: One or several texts.
        input: Parquet, JSON lines or CSV files, as a corpus may be.
        store: A store made with the model and SAEs that it was trained on.
        text_column, id_column: Of `input`.
        explain: Name so many features for the class of each document, and as many against it.
        on_error: What failed, empty or truncated documents are: "undecided", a class, or "fail".
        accept_truncated: Whether a document that is too long is decided by its beginning.

    Returns:
        A row for each document: `doc_id`, what the store keeps, `prediction`, a column for each class (`p_CLASS`),
        `in_training`, `decision`, `error`, and `reasons` as JSON where they were asked for.

    Raises:
        UsageError: No or several sources, no such model, or the store is of another model.
    """
    from featurestore.models.model import load_model
    from featurestore.models.predict import of_training
    from featurestore.models.rule import Rule
    from featurestore.models.thresholds import unreached

    if sum(source is not None for source in (text, input, store)) != 1:
        raise UsageError("there is nothing to classify, or too much; give one of text=, input= and store=")
    if input is None and (text_column is not None or id_column is not None):
        raise UsageError("text_column= and id_column= name columns of input=, which is not given; leave them out")
    count_of(explain, "explain", 0)
    loaded, rule, said = load_model(path_of(model, "a model")), Rule(on_error, accept_truncated), list[str]()
    rule.check(loaded.classes)
    said += [missed] if (missed := unreached(loaded.header)) is not None else []
    if explain and loaded.header["kind"] == "dense":
        raise UsageError(f"explain: {loaded.header['method']} reads hidden states, which have no features to name")
    if store is not None:
        found = _of_store(
            loaded,
            store if isinstance(store, FeatureStore) else FeatureStore.open(path_of(store, "a store")),
            explain,
            said,
        )
    else:
        texts = None if text is None else _strings(text, "text", "text")
        files = None if input is None else _strings(input, "input", "path")
        columns = {"text_column": text_column, "id_column": id_column, "evaluate": None}
        options = argparse.Namespace(text=texts, input=files, explain=explain, **columns)
        found = _of_documents(loaded, options, said)
    trained = sum(int(one.in_training.sum()) for one in found if one.in_training is not None)
    said += [of_training(trained, sum(map(len, found)))] if trained else []
    for sentence in dict.fromkeys(said):
        python_warnings.warn(sentence, stacklevel=2)
    return _table(loaded, rule, found, bool(explain), store)


def _strings(given: Any, name: str, what: str) -> list[str]:
    """One text or path, or several, as a list; UsageError where one is neither."""
    one = isinstance(given, str | os.PathLike)
    several = [given] if one else list(given) if isinstance(given, Iterable) else None
    if several is None or not all(isinstance(each, str | os.PathLike) for each in several):
        raise UsageError(f"{name} must be a {what} or a list of them, not {str(given)[:60]}")
    return [os.fspath(each) for each in several]


def _of_store(model: Model, store: FeatureStore, explain: int, said: list[str]) -> list[Predicted]:
    from featurestore.models.predict import check_model, predict_store

    said += [caution.counted(store) for caution in check_model(model, store.plan, shown(store.uri))]
    return [replace(batch, X=None) for batch in predict_store(model, store, explain)]


@of_stage_one
def _of_documents(model: Model, options: argparse.Namespace, said: list[str]) -> list[Predicted]:
    batches: Iterable[Predicted] = stages.scored(options, model, said.append)
    numbered = options.input is None  # ids that stand for nothing
    return [replace(one, X=None, in_training=None if numbered else one.in_training) for one in batches]


def _table(model: Model, rule: Any, batches: Sequence[Predicted], explain: bool, store: Any) -> pl.DataFrame:
    import polars as pl
    import pyarrow as pa

    from featurestore.models.table import PredictionTable
    from training.output.names_read import names_read

    opened = store if store is None or isinstance(store, FeatureStore) else FeatureStore.open(store)
    table = PredictionTable(model, opened, explain, names_read(model) if explain else {})
    rows = [table.rows(one, rule.decide(model.classes, one), rule.problems(one)) for one in batches]
    found = pl.from_arrow(pa.concat_tables(rows) if rows else table.schema.empty_table())
    assert isinstance(found, pl.DataFrame)
    return found
