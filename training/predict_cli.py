"""The command `predict`: apply a model that a study wrote to texts, lines, files, a store or a job.

The features of a document come from a store, or from the engine, which is the front door's to start (`args.scored`):
this package knows no stage 1. All that can be wrong is found first; then rows come and go a batch at a time, so that
memory does not grow with their number.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, Any

from featurestore.base.arguments import count_argument
from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.hostile_text import running, visible
from featurestore.base.json_text import json_text, print_json
from featurestore.base.number_words import counted
from featurestore.base.terminal import print_page
from featurestore.errors import UsageError
from featurestore.storage.user_outputs import overwrite_argument
from featurestore.url_secrets import shown

if TYPE_CHECKING:
    from featurestore.models.model import Model
    from featurestore.models.predict import Predicted
    from featurestore.models.rule import Rule
    from featurestore.reader import FeatureStore
    from training.scores.new_documents import Evaluation

VERSION = 1  # of what --json prints
SOURCES = ("text", "input", "store", "job")  # options that say where documents come from
SPOOLED_BYTES = 1 << 23  # of rows for --json in memory; what is more waits on the disk


def predict_parser(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sparsemill predict`."""
    parser.description = "Classify texts, files or the documents of a store with a model that a study wrote."
    parser.epilog = (
        "examples:\n"
        '  sparsemill predict study/models/sae.json --text "first text" --text "second text"\n'
        "  cat lines.txt | sparsemill predict study/models/sae.json -\n"
        "  sparsemill predict study/models/sae.json --input new/*.parquet --text-column body --out answers.csv\n"
        "  sparsemill predict study/models/sae.json --input s3://bucket/new/ --out answers/    on Ray, resumable\n"
        "  sparsemill predict study/models/sae.json --store reviews --out answers.parquet\n"
        "  sparsemill predict study/models/sae.json --job new-reviews.yaml    extracts first\n\n"
        "Texts need no YAML: the model file says which language model and SAE it was trained on. Ids of texts are\n"
        "1, 2, ...; those of standard input are line numbers. The table has doc_id, the columns that a store keeps,\n"
        "prediction (the likeliest class), p_CLASS for each class (score_CLASS where a linear SVM has no\n"
        "probabilities), in_training (whether the model was trained on a document of this id), decision and error.\n"
        "A document that failed, is empty, or was read in part only is decided by --on-error."
    )
    parser.add_argument("model", metavar="MODEL", help="NAME.json beside NAME.safetensors")
    parser.add_argument("stdin", metavar="-", nargs="?", choices=["-"], help="read one document a line from stdin")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--text", action="append", metavar="TEXT", help="a document; may be given again")
    source.add_argument("--input", nargs="+", metavar="FILE", help="Parquet, JSON lines or CSV, as a corpus may be")
    source.add_argument("--store", help="a store made with the model and SAEs that it was trained on")
    source.add_argument("--job", metavar="JOB.yaml", help="a job over new text, which is extracted into its store")
    parser.add_argument("--text-column", metavar="C", help="of --input, the column of the text (default: text)")
    parser.add_argument("--id-column", metavar="C", help="of --input, the column of the id (default: FILE:ROW)")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="write a table: .csv, .jsonl or .parquet; of --input a name without ending is a directory of parts, "
        "which is computed on Ray and finished by the same command again",
    )
    parser.add_argument("--address", help="for a directory of parts, the Ray cluster to run on (default: this machine)")
    parser.add_argument("--workers", type=count_argument, metavar="N", help="for a directory of parts, at most so many")
    parser.add_argument(
        "--on-error",
        default="undecided",
        metavar="RULE",
        help="what failed, empty or truncated documents are: undecided (the default), a class, or fail",
    )
    parser.add_argument(
        "--accept-truncated", action="store_true", help="decide a document by its beginning where it is too long"
    )
    parser.add_argument(
        "--explain",
        type=count_argument,
        default=0,
        metavar="K",
        help="name the K features most for the class, K against",
    )
    parser.add_argument(
        "--evaluate",
        metavar="COLUMN",
        help="score the predictions against the labels of this column (of --input, or that the store keeps)",
    )
    parser.add_argument(
        "--drift",
        action="store_true",
        help="say which features fire in another share of the documents than in training; no labels are needed",
    )
    overwrite_argument(parser, "a file that is there already")


def predict(args: argparse.Namespace) -> int:
    """Run `sparsemill predict`: all that can be wrong is found first, then rows are read and written as they come."""
    from featurestore.models.model import load_model
    from featurestore.models.rule import Rule
    from featurestore.models.table import check_out
    from featurestore.models.thresholds import unreached

    source = _source(args)
    model = load_model(args.model)
    rule = Rule(args.on_error, args.accept_truncated)
    rule.check(model.classes)
    if args.explain and model.header["kind"] == "dense":
        raise UsageError(f"--explain: {model.header['method']} reads hidden states, which have no features to name")
    missed, warnings = unreached(model.header), _Warnings()
    if args.drift and model.header["kind"] == "dense":
        raise UsageError(f"--drift: {model.header['method']} reads hidden states, which have no features that fire")
    if source == "input" and args.out and not PurePath(args.out).suffix:
        if args.drift:
            raise UsageError(
                "--drift: a directory of parts keeps no features; give --out an ending (day.parquet), or leave it out"
            )
        warnings.say(missed)
        return _parts(args, model, rule)
    if args.address or args.workers:
        raise UsageError("--address and --workers are for --input with --out DIRECTORY, which is scored on Ray")
    if args.out:
        check_out(args.out, args.overwrite)
    warnings.say(missed)
    store = None
    if source in ("store", "job"):
        store = _store(args, model, warnings.say)
        from featurestore.models.predict import predict_store

        batches: Iterable[Predicted] = predict_store(model, store, args.explain)
    else:
        batches = args.scored(args, model, warnings.say)
        if source != "input":  # numbers that stand for nothing
            batches = (replace(batch, in_training=None) for batch in batches)
    labels = _labels(store, args.evaluate) if store is not None and args.evaluate else None
    with _Answers(args, model, rule, store) as answers:
        for batch in batches:
            own = batch.keep.get(args.evaluate) if labels is None else [next(labels) for _ in range(len(batch))]
            answers.add(batch, own)
        answers.finish(warnings)
    return 0


def _parts(args: argparse.Namespace, model: Model, rule: Rule) -> int:
    """Score files on Ray into a directory of parts, and count what came out."""
    from featurestore.reader import FeatureStore

    if args.overwrite:
        raise UsageError("--overwrite: a directory of parts is never replaced, only finished; choose another --out")
    store = FeatureStore.open(args.scored_parts(args, model, rule))
    evaluation = _evaluated(model, store, args.evaluate, rule) if args.evaluate else None
    decided = store.documents().group_by("decision").len().collect()
    counts = dict(zip(decided["decision"].to_list(), decided["len"].to_list(), strict=True))
    if args.json:
        about = {"version": VERSION, "method": model.header["method"], "out": shown(store.uri)}
        found = {"decisions": counts, "evaluation": evaluation and asdict(evaluation)}
        return print_json({**about, "documents": len(store), "parts": len(store.plan.units), **found})
    print(f"{_counted(len(store), model, counts)}; written to {shown(store.uri)}", file=sys.stderr)
    if evaluation is not None:
        print_page(_evaluation_page(evaluation, args.evaluate))
    return 0


def _evaluated(model: Model, store: FeatureStore, column: str, rule: Rule) -> Evaluation:
    """The scores of predictions that stand in parts, against the labels that their rows keep."""
    from featurestore.models.table import kept_predictions
    from training.scores.new_documents import Evaluator

    evaluator = Evaluator(model, column)
    for batch, decisions in kept_predictions(model, store, [column]):
        evaluator.add(batch, batch.keep[column], decisions, rule.problems(batch))
    return evaluator.result()


def _counted(n: int, model: Model, counts: Mapping[str, int]) -> str:
    names = [*model.classes, *(name for name in counts if name not in model.classes)]
    return f"{counted(n, 'document')}: {', '.join(f'{visible(name)} {counts.get(name, 0):,}' for name in names)}"


def _source(args: argparse.Namespace) -> str:
    """Where documents come from: `stdin`, or one of `SOURCES`.

    Raises:
        UsageError: From two places, from nowhere, or an option has nothing to do.
    """
    given = [name for name in SOURCES if getattr(args, name) is not None]
    if args.stdin and given:
        raise UsageError(f"- is standard input, and --{given[0]} is given too; leave one of them out")
    for name in ("text_column", "id_column"):
        if getattr(args, name) is not None and given != ["input"]:
            raise UsageError(f"--{name.replace('_', '-')} says which column of --input to take; give --input too")
    if args.evaluate is not None and given not in (["input"], ["store"], ["job"]):
        raise UsageError("--evaluate compares with the labels of a column; give documents with --input or --store")
    if given:
        return given[0]
    if not args.stdin and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("there is nothing to classify; give --text, --input, --store or --job, or pipe lines to it")
    return "stdin"


def _store(args: argparse.Namespace, model: Model, warn: Callable[[str], None]) -> FeatureStore:
    """The store to classify; of a job it is extracted first."""
    from featurestore.models.predict import check_model
    from featurestore.reader import FeatureStore

    def check(plan: Any, uri: str) -> None:
        for caution in check_model(model, plan, shown(uri)):
            print(f"warning: {visible(caution.sentence)}", file=sys.stderr, flush=True)

    store = FeatureStore.open(args.extracted(check) if args.job else args.store)
    for caution in check_model(model, store.plan, shown(store.uri)):
        warn(caution.counted(store))
    return store


def _labels(store: FeatureStore, column: str) -> Iterator[Any]:
    """The values of a column that a store keeps, document after document."""
    kept = [name for name, _ in store.schema.keep]
    if column not in kept:
        raise UsageError(
            f"--evaluate: {shown(store.uri)} keeps no column '{column}'{did_you_mean(column, kept)} "
            f"(columns: {', '.join(kept) or 'none'})"
        )
    return iter(store.documents().select(column).collect()[column].to_list())


@dataclass
class _Warnings:
    """Sentences that are said at once and listed again with --json."""

    said: list[str] = field(default_factory=list)

    def say(self, sentence: str | None) -> None:
        if sentence is not None and sentence not in self.said:
            self.said.append(sentence)
            print(f"warning: {visible(sentence)}", file=sys.stderr, flush=True)


class _Answers:
    """Where rows go: into a table, into a list on the screen, or into one JSON document."""

    def __init__(self, args: argparse.Namespace, model: Model, rule: Rule, store: FeatureStore | None) -> None:
        from featurestore.models.table import PredictionTable
        from training.output.names_read import names_read
        from training.scores.drift import DriftMeter
        from training.scores.new_documents import Evaluator

        self._args, self._model, self._rule = args, model, rule
        self._names = names_read(model) if args.explain else {}
        self._table = PredictionTable(model, store, bool(args.explain), self._names)
        self._counts: dict[str, int] = {}
        self._problems = self._trained = self._n = 0
        self._evaluator = Evaluator(model, args.evaluate) if args.evaluate else None
        self._meter = DriftMeter(model) if args.drift and self._evaluator is None else None
        self._stack, self._table_open = ExitStack(), ExitStack()
        self._rows: IO[str] | None = None
        self._write: Callable[[Any], None] | None = None

    def __enter__(self) -> _Answers:
        from featurestore.models.table import open_table, score_prefix

        with ExitStack() as stack:
            if self._args.out:
                self._write = self._table_open.enter_context(open_table(self._args.out, self._table.schema))
                stack.push(self._table_open)
            if self._args.json:
                spool = tempfile.SpooledTemporaryFile(SPOOLED_BYTES, "w+", encoding="utf-8", newline="\n")
                self._rows = stack.enter_context(spool)
            elif not self._args.out:
                print(f"doc_id\tprediction\t{score_prefix(self._model)}prediction\tin_training\tdecision")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stack.__exit__(*exc)

    def add(self, batch: Predicted, labels: Sequence[Any] | None) -> None:
        """Some more documents, with their labels where they are to be compared."""
        from featurestore.models.table import json_row

        classes = self._model.classes
        problems, decisions = self._rule.problems(batch), self._rule.decide(classes, batch)
        self._n += len(batch)
        self._trained += 0 if batch.in_training is None else int(batch.in_training.sum())
        self._problems += sum(problem is not None for problem in problems)
        for decision in decisions:
            self._counts[decision] = self._counts.get(decision, 0) + 1
        if self._evaluator is not None and labels is not None:
            self._evaluator.add(batch, labels, decisions, problems)
        if self._meter is not None:
            self._meter.add(batch)
        if self._write is not None:
            self._write(self._table.rows(batch, decisions, problems))
        if self._rows is None and self._write is not None:
            return
        for i in range(len(batch)):
            row = json_row(classes, batch, i, decisions[i], problems[i], self._names)
            if self._rows is not None:
                self._rows.write(f"{json_text(row, ascii=True)}\n")
            else:
                print(_lines(row))

    def finish(self, warnings: _Warnings) -> None:
        """Have the table appear, and say what came of all documents; that nobody listens costs no table."""
        from featurestore.models.predict import of_training
        from training.scores.drift import drift_lines

        self._table_open.close()
        if self._trained:
            warnings.say(of_training(self._trained, self._n))
        evaluation = None if self._evaluator is None else self._evaluator.result()
        if self._rows is not None:
            self._print_json(self._rows, warnings.said, evaluation)
            return
        problems = f" ({self._problems:,} failed, empty or read in part)" if self._problems else ""
        where = f"; written to {shown(self._args.out)}" if self._args.out else ""
        print(f"{_counted(self._n, self._model, self._counts)}{problems}{where}", file=sys.stderr)
        if not self._args.out and (point := self._model.header.get("operating_point")) is not None:
            name = visible(point["class"])
            print(f"prediction: the likeliest class; decision: by the operating point of '{name}'", file=sys.stderr)
        if evaluation is not None:
            print_page(_evaluation_page(evaluation, self._args.evaluate))
        elif self._meter is not None:
            print_page("\n".join(drift_lines(self._meter.result())))

    def _print_json(self, rows: IO[str], warnings: Sequence[str], evaluation: Evaluation | None) -> None:
        """One document, row after row, so that memory does not hold them all."""
        about = {
            "version": VERSION,
            "method": self._model.header["method"],
            "out": self._args.out and shown(self._args.out),
            "warnings": list(warnings),
            "trained_on": self._trained,
            "decisions": self._counts,
            "evaluation": evaluation and asdict(evaluation),
            "drift": None,
        }
        if self._args.drift:
            shifts = evaluation.shifts if evaluation is not None else self._meter and self._meter.result()
            about["drift"] = shifts and asdict(shifts)
        print(json_text(about, ascii=True)[:-1], end=', "predictions": [')
        rows.seek(0)
        for number, row in enumerate(rows):
            print(end=("" if number == 0 else ", ") + row.rstrip("\n"))
        print("]}")


def _evaluation_page(evaluation: Evaluation, column: str) -> str:
    from training.scores.new_documents import format_evaluation

    return format_evaluation(evaluation, column)


def _lines(row: Mapping[str, Any]) -> str:
    """A document on the screen: the likeliest class with its probability, the decision, what is wrong, the reasons."""
    name, known, problem = row["class"], row["in_training"], row["error"]
    best = "" if name is None else f"{row['probabilities'][name]:.3f}"
    trained = "" if known is None else ("yes" if known else "no")
    likeliest = "" if name is None else visible(name)
    line = "\t".join([visible(row["doc_id"]), likeliest, best, trained, visible(row["decision"])])
    line += f"\t{visible(problem)}" if problem else ""
    return "\n".join([line, *(_reason(reason) for reason in row["reasons"] or ())])


def _reason(reason: Mapping[str, Any]) -> str:
    name, tokens = reason["name"], reason["tokens"]
    line = f"    {reason['contribution']:+.3g}  {reason['sae']}:{reason['feature']}"
    line += f"  {running(name['text'])} [{name['source']}]" if name else ""
    where = ", ".join(f"'{running(token['text'])}'" for token in tokens or ())
    return line + (f"  at {where}" if where else f"  (value {reason['value']:.3g})")
