"""Run the commands that look at a store: `status`, `verify`, `show`.

Each prints a page for people, or one JSON document with `--json`. Arrow and polars are loaded only when a command runs;
what the pages say is found out by `status`, `checks.verify` and `index.lookup`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

from featurestore.base.arguments import count_argument, feature_argument
from featurestore.base.hostile_text import shortened
from featurestore.base.json_text import print_json
from featurestore.base.number_words import counted, duration, size, span
from featurestore.base.terminal import fact_lines, page_lines, print_page
from featurestore.errors import UsageError
from featurestore.url_secrets import shown

if TYPE_CHECKING:
    from featurestore.checks.run_files import RunRecord
    from featurestore.checks.verify import VerifyReport
    from featurestore.index.lookup import DocumentView, FeatureView
    from featurestore.reader import FeatureStore
    from featurestore.status import RunStatus

_SHOWN_CHARACTERS = 120  # of a value: an error sentence fits, a document does not fill the screen
_LONG_READ = 1 << 28  # bytes: some seconds, after which a silent command looks stuck
_SHOWN_KINDS = 10  # of errors and of failed units
_SHOWN_UNDER_WAY = 5  # the longest; a thousand workers have a thousand
_SHOWN_PROBLEMS = 20  # a page; --json lists all of them


def status_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `status`."""
    parser.epilog = (
        "examples:\n  sparsemill status store/\n  sparsemill status store/ --watch\n\n"
        "--watch paints the page again and again until the run has ended; the exit code is 1 if that left the store\n"
        "incomplete. In a pipe it prints a line, or with --json a document, each time something has changed.\n"
        "Ctrl-C ends it and leaves the run as it is."
    )
    parser.add_argument("store", help="directory or URL of the store")
    parser.add_argument("--watch", action="store_true", help="go on until the run has ended")


def status(args: argparse.Namespace) -> int:
    """Print how a store stands, live or afterwards; exit code 0 whether it is complete or not."""
    from featurestore.status import run_status

    if args.watch:
        from featurestore.watch import watch

        return watch(args.store, status_lines, _status_json if args.json else None)
    now = run_status(args.store)
    if args.json:
        return print_json(_status_json(args.store, now))
    print("\n".join(status_lines(args.store, now)))
    return 0


def _status_json(store: str, now: RunStatus) -> dict[str, object]:
    from featurestore.format.store_plan import read_plan

    return {"store": shown(store), "fingerprint": read_plan(store).fingerprint, **asdict(now)}


def status_lines(store: str, now: RunStatus) -> list[str]:
    """The page of `status`."""
    state = "complete" if now.complete else "incomplete; rerun extract to finish it"
    if now.seconds_silent is not None and (now.running or now.missed):
        state = f"{'running,' if now.running else 'incomplete, its run was'} last heard of {_ago(now.seconds_silent)}"
    return [*page_lines(f"{shown(store)}: {state}"), *fact_lines(_facts(now), margin=2)]


def _facts(now: RunStatus) -> Iterator[tuple[str, str]]:
    """What is done, what runs, what went wrong: labels and lines."""
    per_document = f" ({now.bytes / now.rows_done:,.0f} a document)" if now.rows_done else ""
    doing = f", {now.units_running:,} running" if now.units_running else ""
    failed = f", {now.units_failed:,} failed" if now.units_failed else ""
    yield "units", f"{now.units_done:,} of {now.units:,}{doing}{failed}"
    yield "documents", f"{now.rows_done:,} of {now.rows:,}, {now.errors:,} with an error"
    yield "tokens", f"{now.tokens:,}"
    yield "bytes", f"{now.bytes:,}{per_document}"
    if now.run is not None:
        yield from _run_facts(now, now.run)
    yield from _unit_facts(now)
    for kind in now.error_kinds[:_SHOWN_KINDS]:
        yield "error", f"{counted(kind.documents, 'document')}: {_shown(kind.kind)}"
        for doc_id, sentence in kind.examples:
            yield "", f"{_shown(doc_id)}: {_shown(sentence)}"
    if len(now.error_kinds) > _SHOWN_KINDS:
        yield "", f"and {len(now.error_kinds) - _SHOWN_KINDS:,} more kinds of error; --json lists them"


def _run_facts(now: RunStatus, run: RunRecord) -> Iterator[tuple[str, str]]:
    by = f"process {run.pid} on {_shown(run.host)}"
    if now.running:
        yield "run", f"by {by} since {_shown(run.started_at)}"
        wanted = f" of {run.workers_wanted:,}" if run.workers < run.workers_wanted else ""
        yield "workers", f"{run.workers:,}{wanted} ready"
        if run.unmet is not None:
            yield "waiting", " ".join(run.unmet.split())
        if now.tokens_per_second is not None:
            left = f", {duration(now.seconds_left)} left" if now.seconds_left is not None else ""
            yield "rate", f"{now.tokens_per_second:,.0f} tokens/s over the last minute{left}"
    else:
        ended = {
            "running": f"{'' if now.missed else 'ended without a word, '}last heard of {_ago(run.seconds_silent)}",
            "failed": f"failed: {_shown(run.reason)}",
            "stopped": "was stopped",
        }.get(run.state, "finished")
        yield "last run", f"by {by} since {_shown(run.started_at)}, {ended}"
    if run.submission is not None:
        yield (
            "job",
            f"{_shown(run.submission)} of a Ray cluster; `ray job logs {_shown(run.submission)}` prints its log",
        )
    if run.log is not None:
        yield "log", f"{_shown(run.log)} on {_shown(run.host)}"
    if run.events:
        yield "events", ", ".join(f"{_shown(kind)} {n:,}" for kind, n in run.events.items())
    for unit, reason in list(run.failed.items())[:_SHOWN_KINDS]:
        yield "failed", f"unit {unit}: {_shown(reason)}"


def _unit_facts(now: RunStatus) -> Iterator[tuple[str, str]]:
    if now.worker_seconds:
        yield "worker", f"{now.worker_tokens / now.worker_seconds:,.0f} tokens/s each, over all units noted"
    for note in now.slowest if len(now.slowest) > 1 else ():
        work = f"{counted(note.rows, 'document')}, {counted(note.tokens, 'token')}"
        yield "slowest", f"unit {note.unit}: {span(note.seconds)} for {work} on {_shown(note.host)}"
    if now.running and now.run is not None:
        longest = sorted(now.run.under_way, key=lambda under: -under.seconds)[:_SHOWN_UNDER_WAY]
        for under in longest:
            done = f"{counted(under.documents, 'document')} so far"
            yield "under way", f"unit {under.unit}: {duration(under.seconds)} on {_shown(under.host)}, {done}"


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s ago" if seconds < 60 else f"{duration(seconds)} ago"


def verify_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `verify`."""
    parser.epilog = (
        "example:\n  sparsemill verify store/\n\n"
        "exit codes: 0 every promise holds, in what is there so far where a run is writing the store; 1 one does not,\n"
        "or the store is unfinished and no run is writing it"
    )
    parser.add_argument("store", help="directory or URL of the store")
    parser.add_argument("--quick", action="store_true", help="names, sizes, footers and manifest only; read no rows")


def verify(args: argparse.Namespace) -> int:
    """Recheck a store; exit code 1 if a promise is broken, or a store is unfinished and no run is writing it."""
    from featurestore.checks.verify import verify_store

    report = verify_store(args.store, args.quick)
    if args.json:
        print_json({"store": shown(args.store), "ok": report.ok, **asdict(report)})
        return 0 if report.ok else 1
    print_page(f"{shown(args.store)}: {_verdict(report)}")
    damage = report.problems[len(report.missing) :]
    for problem in damage[:_SHOWN_PROBLEMS]:
        print_page(f"  {problem}")
    if len(damage) > _SHOWN_PROBLEMS:
        print_page(f"  and {len(damage) - _SHOWN_PROBLEMS:,} more; --json lists them")
    return 0 if report.ok else 1


def _verdict(report: VerifyReport) -> str:
    checked = f"{counted(report.parts, 'part')}, {counted(report.rows, 'document')}, {report.bytes:,} bytes"
    there = f"{report.parts:,} of {counted(report.units, 'part')} {'is' if report.parts == 1 else 'are'} there"
    damage = len(report.problems) - len(report.missing)
    there += f", with {counted(damage, 'problem')}" if damage else ", what is there is sound" if report.parts else ""
    if report.writer is not None:
        return f"a run is writing: {there} ({report.writer}; {checked})"
    if not report.finished:
        return f"unfinished: {there}; rerun extract to finish it ({checked})"
    if damage:
        return f"{counted(damage, 'problem')} ({checked})"
    return f"every {'quick check' if report.quick else 'promise of the format'} holds ({checked})"


def show_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `show`."""
    parser.epilog = (
        "examples:\n"
        "  sparsemill show store/                              its columns and first documents\n"
        "  sparsemill show store/ --doc reviews.jsonl:17       that document's strongest features\n"
        "  sparsemill show store/ --feature l12_16k:1234       the documents where that feature is strongest\n"
        "  sparsemill show store/ --feature l12_16k:1234 --pool sum --top 50 --json\n"
        "\n"
        "The first --feature of a pooling reads the whole store once and keeps an index in $SPARSEMILL_CACHE or\n"
        "~/.cache/sparsemill; later ones answer at once. A store that changed gets a new index."
    )
    parser.add_argument("store", help="directory or URL of the store")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--doc", metavar="ID", help="the strongest features of this document")
    what.add_argument(
        "--feature", metavar="[SAE:]N", type=feature_argument, help="the documents where this feature is strongest"
    )
    parser.add_argument(
        "--sae", metavar="NAME", help="which SAE (default: all; a feature needs it if there are several)"
    )
    parser.add_argument("--pool", metavar="POOL", help="which pooling ranks documents (default: the first stored)")
    parser.add_argument("--top", metavar="K", type=count_argument, default=10, help="lines to show (default: 10)")


def show(args: argparse.Namespace) -> int:
    """Print what a store holds, one document of it, or one feature."""
    from featurestore.index.lookup import document_view, feature_view
    from featurestore.reader import FeatureStore

    if args.pool is not None and args.feature is None:
        raise UsageError("--pool ranks the documents of a feature; give --feature N with it, or leave it out")
    named, number = args.feature or (None, None)
    if named is not None and args.sae not in (None, named):
        raise UsageError(f"--feature names SAE '{named}' and --sae '{args.sae}'; leave one of them out")
    store = FeatureStore.open(args.store, partial=True)
    if args.doc is not None:
        document = document_view(store, args.doc, args.top, args.sae)
        return print_json(asdict(document)) if args.json else _print_document(document)
    if number is not None:
        told = partial(_tell_of_indexing, shown(args.store), store.status().bytes)
        feature = feature_view(store, number, args.top, named or args.sae, args.pool, told)
        return print_json(asdict(feature)) if args.json else _print_feature(feature)
    return _show_store(store, args)


def _show_store(store: FeatureStore, args: argparse.Namespace) -> int:
    schema = store.schema if args.sae is None else replace(store.schema, saes=(store.sae(args.sae),))
    first = store.documents().head(args.top).collect().to_dicts()
    if args.json:
        return print_json(
            {"store": shown(args.store), "complete": store.complete, "schema": schema.to_json(), "documents": first}
        )
    print_page(
        f"{shown(args.store)}: {counted(len(store), 'document')}{'' if store.complete else ' so far (incomplete)'}"
    )
    for sae in schema.saes:
        print_page(f"  SAE {sae.name}: {sae.d_sae:,} features; pooled by {', '.join(sae.pools)}")
    for dense in schema.dense:
        print_page(f"  dense {dense.name}: {dense.dim:,} dimensions")
    for document in first:
        print_page(f"  {_metadata_line(document)}")
    return 0


def _print_document(document: DocumentView) -> int:
    print_page(_metadata_line(document.metadata))
    for sae, features in document.top.items():
        print_page(f"  {sae}: {document.n_features[sae]:,} features")
        for feature in features:
            values = "  ".join(f"{pool} {value:.6g}" for pool, value in feature.values.items())
            print_page(f"  {feature.feature:>10}  {values}")
    return 0


def _print_feature(feature: FeatureView) -> int:
    active = counted(feature.n_documents, "document")
    print_page(
        f"{feature.sae}:{feature.feature}: active in {active}; {feature.pool} is {feature.mean:.6g} on average over "
        f"all documents, {feature.maximum:.6g} at most:"
    )
    for document in feature.top:
        print_page(
            f"  {document['value']:>12.6g}  {_metadata_line({'doc_id': document['doc_id'], **document['metadata']})}"
        )
    return 0


def _tell_of_indexing(store: str, n_bytes: int) -> None:
    if n_bytes >= _LONG_READ:
        print(f"{store}: reading its {size(n_bytes)} once, to index this pooling", file=sys.stderr, flush=True)


def _metadata_line(metadata: dict[str, object]) -> str:
    rest = {key: value for key, value in metadata.items() if key != "doc_id" and value is not None}
    return f"{_shown(metadata['doc_id'])}  " + "  ".join(f"{key}={_shown(value)}" for key, value in rest.items())


def _shown(value: object) -> str:
    """A value as a page can show it; --json has all of it."""
    return shortened(value, _SHOWN_CHARACTERS)
