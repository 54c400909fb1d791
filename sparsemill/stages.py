"""Do what takes both stages: a study on a cluster, tokens for a report, new text through a trained model.

Stage 2 knows no Ray and no engine; what it needs of stage 1 is handed to it from here, by the commands and by Python's
front alike. Neither stage is imported before something is asked of it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from featurestore.base.terminal import say
from featurestore.url_secrets import without_secrets
from sparsemill.installation import missing

if TYPE_CHECKING:
    from featurestore.evidence.records import DocumentEvidence
    from featurestore.reader import FeatureStore


def on_ray(address: str) -> Callable[[Sequence[Any]], Iterator[Any]]:
    """Runs the pieces of a study as tasks of a Ray cluster; stage 2 itself knows no Ray.

    Args:
        address: Of the cluster, as for `extract`; "local" starts one on this machine for the length of the study.
    """

    def run(tasks: Sequence[Any]) -> Iterator[Any]:
        import dataclasses

        from ray_jobs.workers.tasks import run_tasks
        from training.evaluation import run_source

        def work(task: Any, data: Any, splits: Any) -> list[Any]:
            return list(run_source(dataclasses.replace(task, data=data, splits=splits)))

        pieces = [(dataclasses.replace(task, n_jobs=1, data=None, splits=()), task.data, task.splits) for task in tasks]
        where = None if address == "local" else address
        for found in run_tasks(work, pieces, where, "a piece of the study"):
            yield from found

    return run


def extracted(job: str, check: Callable[[Any, str], None]) -> str:
    """Extract a job and return its store; what the commands print goes to stderr, for stdout is the caller's.

    Args:
        job: JOB.yaml.
        check: Called with the plan and the URI of the store before anything is extracted, to refuse it.
    """
    from featurestore.errors import SparsemillError
    from ray_jobs import cli
    from ray_jobs.planning.job_plan import expected_store
    from ray_jobs.spec import load_job

    for command in ("prepare", "extract"):
        if command == "extract":
            spec = load_job(job)
            check(expected_store(spec), spec.store)
        parser = argparse.ArgumentParser(prog=f"sparsemill {command}")
        getattr(cli, f"{command}_parser")(parser)
        args = parser.parse_args([job])
        args.json = False
        with contextlib.redirect_stdout(sys.stderr):
            code = int(getattr(cli, command)(args))
        if code:
            raise SparsemillError(
                f"{job}: {command} ended with {code}, so there is nothing to classify; mend that first"
            )
    return str(load_job(job).store)


def gather_evidence(study: str) -> None:
    """Keep the tokens of the documents that a study's report shows beside the study, as far as its models are here.

    A study stands without them, so whatever is missing is only said: the report says it too.
    """
    from featurestore.errors import SparsemillError
    from training.report.naming import missing_evidence, shown_features

    try:
        from ray_jobs.evidence.alike import gather_alike
        from ray_jobs.evidence.gather import gather_evidence
        from ray_jobs.quiet import silence_libraries

        cache, wanted = missing_evidence(study)
        silence_libraries()
        for store, documents in wanted.items():
            found = gather_evidence(store, documents, cache, say=say)
            for problem in _problems(found):
                say(f"the report shows no tokens: {problem}")
        directory, place, features = shown_features(study)
        if features:
            gather_alike(place, features, directory, say=say)
    except ModuleNotFoundError as error:
        say(f"the report shows no tokens: {missing('running the model once more', error)}")
    except (SparsemillError, OSError) as error:
        say(f"the report shows less than it could: {without_secrets(str(error))}")


def _problems(found: Mapping[str, DocumentEvidence]) -> list[str]:
    """Why documents have no tokens: each reason once, however many documents share it, with the first for example."""
    by_reason: dict[str, list[str]] = {}
    for doc_id, one in found.items():
        if one.problem and not one.tokens:
            by_reason.setdefault(one.problem.replace(f"document '{doc_id}'", "document '...'"), []).append(one.problem)
    return [
        problems[0] + (f" (and {len(problems) - 1:,} more likewise)" if len(problems) > 1 else "")
        for problems in by_reason.values()
    ]


def scored(args: argparse.Namespace, model: Any, warn: Callable[[str], None]) -> Iterator[Any]:
    """What a model says of documents that are in no store, computed in this process; stage 2 itself knows no engine.

    Args:
        args: Of `predict`: `text`, or `input` with its columns, or neither for standard input.
        model: The trained model.
        warn: Called with what is worth knowing.
    """
    from ray_jobs.quiet import silence_libraries
    from ray_jobs.scoring.documents import of_files, of_lines, of_texts, refuse_images

    silence_libraries()
    refuse_images(model.header)
    if args.text is not None:
        documents = of_texts(args.text)
    elif args.input is not None:
        keep = [args.evaluate] if args.evaluate else []
        documents = of_files(args.input, args.text_column, args.id_column, keep)
    else:
        documents = of_lines(sys.stdin.buffer)
    first = next(documents, None)  # what is wrong with the input is known before seconds are spent on the engine
    if first is None:
        return iter(())
    from ray_jobs.scoring.score_here import Scorer

    scorer = Scorer(model, args.explain, warn, say)
    return (scorer.score(batch) for batch in itertools.chain([first], documents))


def scored_parts(args: argparse.Namespace, model: Any, rule: Any) -> str:
    """What a model says of files, computed on Ray and written as a directory of parts, whose URI is returned."""
    from ray_jobs.quiet import silence_libraries
    from ray_jobs.scoring.documents import corpus_of, refuse_images, reworded
    from ray_jobs.scoring.score_on_ray import score_corpus
    from ray_jobs.scoring.scores import Scores

    silence_libraries()
    refuse_images(model.header)
    with reworded():
        keep = [args.evaluate] if args.evaluate else []
        corpus = corpus_of(args.input, args.text_column, args.id_column, keep).model_dump()
        return score_corpus(Scores(model, rule, args.explain), corpus, args.out, args.address, args.workers).store


class StageOne:
    """What `names` asks of stage 1, as `featurestore.names.evidence_cli.StageOne` says it."""

    def evidence(
        self, store: FeatureStore, wanted: Mapping[str, Sequence[tuple[str, int]]]
    ) -> Iterator[DocumentEvidence]:
        """The tokens of documents with the activations of features."""
        from ray_jobs.evidence.compute import compute_evidence
        from ray_jobs.quiet import silence_libraries

        silence_libraries()
        return compute_evidence(store, wanted, say=say)

    def neuronpedia_id(self, release: str, id: str) -> str | None:
        """An SAE's id at Neuronpedia; None where the registry knows none."""
        from ray_jobs.prepare.registry import neuronpedia_id

        return neuronpedia_id(release, id)

    def generator(self, model: str) -> tuple[str, Callable[[Sequence[str]], Iterator[str]]]:
        """The name of a text generator of this machine, and what it writes after prompts."""
        from ray_jobs.naming.generator import find_generator, generate
        from ray_jobs.quiet import silence_libraries

        silence_libraries()
        found = find_generator(model)
        return found.name, functools.partial(generate, found)
