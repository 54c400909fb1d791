"""Run a study: read the documents, freeze the splits, evaluate every method on them, compare, write it all down.

Everything is selected on inner folds: the hyper-parameter of a method, and the member of a family within each split.
Every method meets each split's test rows once, and nothing is chosen by what it scores there. The same study on the
same store writes the same bytes, whatever the row order of the store, the number of threads, the machines that computed
it, and how often it was stopped and resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from featurestore.models.model import Model
from featurestore.reader import FeatureStore
from training.documents.labels import StudyData, load_documents
from training.documents.regimes import make_conditions
from training.documents.split import Split, make_splits, split_sha256, straddling
from training.documents.transfer import with_strata
from training.evaluation import Executor, MethodOutcome, OutcomeCache, SourceTask, plan_sources, run_here
from training.methods.method import Method
from training.methods.plan import plan_methods
from training.output.another_study import made_of, refuse_other_models, stale_models
from training.output.directory import claim_out
from training.output.explain import versus_majority
from training.output.files import write_study
from training.output.final import hand_out
from training.output.models import remove_model, save_model
from training.probes.probe import C_GRID
from training.results.decided import class_of
from training.results.evaluated import Evaluated
from training.results.records import StudyResult
from training.results.regime_summary import overlaps, summarise_regimes
from training.results.rows import fold_rows, method_rows
from training.results.selection import representative, select
from training.results.slices import slice_scores, slices_at_thresholds
from training.results.summary import summarise
from training.spec import StudySpec

# Fits x documents that take about 5 s; below that, threads cost more than they save.
PARALLEL_WORK = 200_000


def run_study(
    spec: StudySpec,
    progress: Callable[[int, int, str], None] | None = None,
    n_jobs: int | None = None,
    executor: Executor = run_here,
    overwrite: bool = False,
) -> StudyResult:
    """Run a study and write its files to `spec.out`; methods that are done already are not computed again.

    Args:
        spec: The study.
        progress: Called with (methods done, methods in all, name of the method) after each method.
        n_jobs: Threads; by default 1 for a small study, else one for each core. It never changes a result.
        executor: Where the pieces run; by default in this process. It never changes a result.
        overwrite: Whether the results of another study in `spec.out` may be replaced.

    Raises:
        StudyError: `spec.out` holds another study, or a model file that would become another by methods that were
            added; or the store cannot answer the study. One sentence says why.
        StoreError: The store is none, or is incomplete.
    """
    from joblib import cpu_count

    started = time.perf_counter()
    asked = _fix(spec, overwrite)
    data, splits, conditions = asked.data, asked.splits, asked.conditions
    everywhere = (*splits, *conditions)
    if n_jobs is None:
        fits = len(asked.methods) * len(everywhere) * spec.split.folds
        n_jobs = 1 if fits * len(data.y) < PARALLEL_WORK else cpu_count()

    fingerprints = {uri: store.fingerprint for uri, store in asked.stores.items()}
    cache = OutcomeCache(spec.out, fingerprints, spec.store, data, everywhere, spec.screen)
    tasks_of = partial(plan_sources, store=spec.store, data=data, splits=everywhere, n_jobs=n_jobs, screen=spec.screen)
    everything = Evaluated(_outcomes(asked.methods, tasks_of, cache, executor, progress), data, everywhere)
    result, models = _told(spec, asked, everything, n_jobs)
    if not overwrite:
        refuse_other_models(spec.out, models)
    for family in stale_models(spec.out, models):
        remove_model(f"{spec.out}/models/{family}")
    for name, model in models.items():
        save_model(model, f"{spec.out}/models/{name}")
    paths = write_study(result) | {f"model_{name}": f"{spec.out}/models/{name}.json" for name in models}
    return replace(result, paths=paths, seconds=time.perf_counter() - started)


@dataclass(frozen=True)
class _Asked:
    """What a study compares on what, fixed before anything is computed; `stores` are open, by URI, its own first.

    `made_of` is what `training.output.another_study` says of the methods.
    """

    stores: Mapping[str, FeatureStore]
    methods: tuple[Method, ...]
    data: StudyData
    splits: tuple[Split, ...]
    conditions: tuple[Split, ...]
    made_of: Mapping[str, str]


def _fix(spec: StudySpec, overwrite: bool) -> _Asked:
    """Read the documents, freeze the splits, and claim the directory of the study for them."""
    store = FeatureStore.open(spec.store)
    others = {uri: FeatureStore.open(uri) for uri in spec.other_stores}
    methods = plan_methods(store, spec, others)
    data = with_strata(load_documents(store, spec, tuple(others.values())), spec)
    splits = make_splits(data, spec.split)
    conditions = make_conditions(data, splits, spec)
    if spec.operating_point is not None:
        class_of(spec.operating_point, data.classes)  # before anything is spent
    stores = {spec.store: store, **others}
    made = made_of(methods, {uri: one.fingerprint for uri, one in stores.items()}, spec.store, data, spec.screen)
    claim_out(spec, store.fingerprint, data, (*splits, *conditions), overwrite, made)
    return _Asked(stores, methods, data, splits, conditions, made)


def _told(
    spec: StudySpec, asked: _Asked, everything: Evaluated, n_jobs: int
) -> tuple[StudyResult, Mapping[str, Model]]:
    """What the outcomes say, and the models that are handed out, by family; nothing is written yet."""
    data, splits = asked.data, asked.splits
    plain, harder = everything.on(range(len(splits))), everything.on(range(len(splits), len(everything.splits)))
    winners = select(plain)
    rows = method_rows(plain, winners)
    said = summarise(plain, rows, winners, spec)
    regime_rows, regimes = summarise_regimes(plain, harder, spec)
    named = {name: family.members for name, family in said.selected.items()}
    named |= {} if said.headline is None else {"sae": said.headline.sae, "baseline": said.headline.baseline}
    exported = {family: representative(names) for family, names in named.items()}
    majority = versus_majority(said.comparisons, said.selected, data)
    summaries = {one.method: one for one in said.methods}
    handed = hand_out(spec, asked.stores, everything, exported, summaries, majority, n_jobs)
    result = StudyResult(
        spec=spec,
        data=data,
        splits=splits,
        conditions=asked.conditions,
        split_sha256=split_sha256(data, splits),
        straddling=straddling(data, spec.split),
        c_grid=C_GRID,
        rows=rows,
        regime_rows=regime_rows,
        fold_rows=fold_rows(plain) + fold_rows(harder),
        summary=said.methods,
        selected=said.selected,
        headline=said.headline,
        comparisons=said.comparisons,
        regimes=regimes,
        overlaps=overlaps(harder),
        slices=slices_at_thresholds(slice_scores(plain, winners, spec), plain, handed.decided.values(), spec),
        decided=handed.decided,
        explanation=handed.explanation,
        store_fingerprint=asked.stores[spec.store].fingerprint,
        predictions=said.predictions,
        made_of=asked.made_of,
        paths={},
        seconds=0.0,
    )
    return result, handed.models


def _outcomes(
    methods: Sequence[Method],
    tasks_of: Callable[[Sequence[Method]], Sequence[SourceTask]],
    cache: OutcomeCache,
    executor: Executor,
    progress: Callable[[int, int, str], None] | None,
) -> tuple[MethodOutcome, ...]:
    """The outcome of every method, in their order: from the cache, or computed and kept there."""
    done = {method: outcome for method in methods if (outcome := cache.load(method)) is not None}
    if progress is not None and done:
        progress(len(done), len(methods), "done before")
    missing = [method for method in methods if method not in done]
    for outcome in executor(tasks_of(missing)):
        cache.save(outcome)
        done[outcome.method] = outcome
        if progress is not None:
            progress(len(done), len(methods), outcome.method.name)
    return tuple(done[method] for method in methods)
