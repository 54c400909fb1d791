"""Two commands of stage 2: `study` runs a YAML, `explain` says what decides in a model it wrote.

Imports nothing heavy until a command runs; errors are raised as they are and shown by the front door.
"""

from __future__ import annotations

import argparse
import shlex

from featurestore.base.arguments import count_argument
from featurestore.base.json_text import print_json
from featurestore.base.live import LiveLine
from featurestore.base.number_words import span
from featurestore.base.terminal import print_page
from featurestore.errors import StudyError
from featurestore.storage.user_outputs import overwrite_argument
from featurestore.url_secrets import shown


def study_parser(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sparsemill study`."""
    parser.description = "Train and compare classifiers from a feature store: SAE features against baselines."
    parser.epilog = (
        "example: sparsemill study STUDY.yaml --jobs 2\n\nRun it again: methods that are done are kept.\n\n"
        "In STUDY.yaml, beside features, baselines, probes and split:\n"
        "  operating_point: {class: spam, precision: 0.95, undecided: 0.05}\n"
        "      a threshold with its interval; or recall, false_positive_rate, cost\n"
        "  class_weight: balanced   every class counts alike in training\n"
        "  by: [lang, length]       all scores by slices\n"
        "  baselines: [tfidf, {hidden: [mean], store: other}, {columns: [margin], path: labels.parquet, id: id}]\n"
        "      hidden states or features of another store, and numbers about documents (docs/labels.md)\n"
        "  calibrate: false         leave the probabilities of model files as they are\n"
        "  refit: false             model files keep the evaluated models"
    )
    parser.add_argument("study", metavar="STUDY.yaml", help="which labels, features and baselines; where results go")
    parser.add_argument("--jobs", type=count_argument, default=None, help="threads (default: by size of the study)")
    parser.add_argument("--address", default=None, help="Ray cluster whose nodes share the work, e.g. auto")
    overwrite_argument(parser, "the results and model files of another study in the same place")


def study(args: argparse.Namespace) -> int:
    """Run `sparsemill study`; prints the table, or with --json the content of results.json."""
    from training.evaluation import run_here
    from training.output.explained import format_explanation, top_of_a_study
    from training.output.files import summary_json
    from training.output.printed import format_study
    from training.report.study_page import write_study_report
    from training.spec import load_study
    from training.study import run_study

    spec = load_study(args.study)
    line = LiveLine(at_once=False)  # a study of seconds has nothing to say in a log
    # Where the work runs is the front door's to say: this package knows no Ray.
    executor = getattr(args, "executor", None) or run_here
    try:
        result = run_study(
            spec,
            progress=lambda done, total, method: line.show(lambda: f"{done}/{total} methods  {method}"),
            n_jobs=args.jobs,
            executor=executor,
            overwrite=args.overwrite,
        )
    finally:
        line.close()
    # So is who computes the tokens that the report shows: they need the model.
    if gather := getattr(args, "gather_evidence", None):
        gather(spec.out)
    report = write_study_report(spec.out)
    if args.json:
        paths = {name: shown(path) for name, path in {**result.paths, "report": report}.items()}
        return print_json({"summary": summary_json(result), "explanation": result.explanation, "paths": paths})
    print_page(format_study(result))
    if result.explanation is not None:
        print_page(f"\n{format_explanation(result.explanation, top=top_of_a_study(result.explanation))}")
        if result.explanation["features"]:
            print_page(f"More of them: sparsemill explain {shlex.quote(shown(spec.out) + '/models/sae.json')}")
    print_page(f"\nResults in {shown(spec.out)} ({span(result.seconds)})\nReport: {shown(report)}")
    return 0


def explain_parser(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sparsemill explain`."""
    parser.description = (
        "Say which features decide in a model that a study wrote, in either direction, with training documents for and "
        "against each. Names and marked tokens are shown where they are kept beside the study."
    )
    parser.epilog = (
        "examples:\n  sparsemill explain study/models/sae.json\n"
        "  sparsemill explain study/models/sae.json --toward attack --top 3"
    )
    parser.add_argument("model", metavar="MODEL", help="NAME.json beside NAME.safetensors")
    parser.add_argument(
        "--top", type=count_argument, metavar="K", help="features of each class (default: 5, all with --json)"
    )
    parser.add_argument("--toward", metavar="CLASS", help="only features that speak for this class")
    parser.add_argument(
        "--pool",
        choices=("max", "sum", "mean", "count", "last"),
        help="order and show documents by this pooling of their tokens, where those are kept",
    )


def explain(args: argparse.Namespace) -> int:
    """Run `sparsemill explain`."""
    from training.output.explained import TOP, format_explanation
    from training.report.explain_model import explained, marked_texts, narrowed
    from training.report.naming import feature_names

    study, top = explained(args.model), args.top or (None if args.json else TOP)
    try:
        explanation, names = narrowed(study, top, args.toward, args.pool), feature_names(study)
        if args.json:
            return print_json({"explanation": explanation, "names": names})
        print_page(format_explanation(explanation, names, marked_texts(study, explanation)))
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise StudyError(f"{args.model}: its explanation is damaged; run the study again") from exc
    return 0


def report_parser(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sparsemill report`."""
    parser.description = (
        "One HTML page of a study or of a store, which opens from a mail: it asks nobody for anything, and runs "
        "nothing that a text could smuggle in."
    )
    parser.epilog = (
        "examples:\n  sparsemill report study/                    writes study/report.html, as the study itself did\n"
        "  sparsemill report study/ -o toxicity.html   the same elsewhere\n"
        "  sparsemill report store/ -o store.html      what a store holds\n"
        "  sparsemill report study/ -o out.html --no-text    without texts, ids and names of files"
    )
    parser.add_argument("place", metavar="STUDY", help="directory of a study, or a store")
    parser.add_argument("-o", "--out", metavar="FILE.html", help="where to write it (a store's: NAME-report.html here)")
    parser.add_argument("--no-text", action="store_true", help="leave out texts, ids of documents and names of files")
    overwrite_argument(parser, "a file that is there already")


def report(args: argparse.Namespace) -> int:
    """Run `sparsemill report`."""
    from training.report.writing import write_report

    out = write_report(args.place, args.out, args.no_text, args.overwrite)
    if args.json:
        return print_json({"report": shown(out)})
    print(shown(out))
    return 0
