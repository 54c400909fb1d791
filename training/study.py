"""Run a study: read the documents, freeze the splits, evaluate every method on them, compare, write it all down.

Selection happens on inner folds only: the hyper-parameter of a method, and the member of a family within each split.
Every method meets each split's test rows once, and nothing is chosen by what it scores there. The same study on the
same store writes the same bytes, whatever the row order of the store, the number of threads, the machines that the
cells ran on, and how often it was stopped and resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from featurestore.format.provenance import bundle_sources
from featurestore.models.model import Model
from featurestore.reader import FeatureStore
from training.documents.labels import StudyData, load_documents, token_counts
from training.documents.regimes import make_conditions, with_strata
from training.documents.split import Split, make_splits, split_sha256, straddling
from training.evaluation import Cell, CellCache, Executor, plan_sources, read_source, run_here
from training.methods.features import SPARSE, Method, plan_methods
from training.output.directory import claim_out
from training.output.errors_made import errors_made
from training.output.explain import explain, fit_method, versus_majority
from training.output.files import write_study
from training.output.models import document_frequency, pack, save_model
from training.output.private import without_file_names, without_text
from training.probes.estimators import C_GRID
from training.results.records import StudyResult, representative
from training.results.summary import fold_rows, method_rows, overlaps, select, summarise, summarise_regimes
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
    """Run a study and write its files to `spec.out`; cells that are there already are not computed again.

    Args:
        spec: The study.
        progress: Called with (methods done, methods in all, name of the method) after each method.
        n_jobs: Threads; by default 1 for a small study, else one for each core. It never changes a result.
        executor: Where the pieces run; by default in this process. It never changes a result.
        overwrite: Whether the results of another study in `spec.out` may be replaced.

    Raises:
        StudyError: `spec.out` holds another study, or the store cannot answer the study; one sentence says why.
        StoreError: The store is none, or is incomplete.
    """
    from joblib import cpu_count

    started = time.perf_counter()
    store = FeatureStore.open(spec.store)
    others = {uri: FeatureStore.open(uri) for uri in dict.fromkeys(f.store for f in spec.features) if uri is not None}
    methods = plan_methods(store, spec, others)
    data = with_strata(load_documents(store, spec, tuple(others.values())), spec)
    splits = make_splits(data, spec.split)
    conditions = make_conditions(data, splits, spec)
    claim_out(spec, store.fingerprint, data, (*splits, *conditions), overwrite)
    fits = len(methods) * (len(splits) + len(conditions)) * spec.split.folds
    if n_jobs is None:
        n_jobs = 1 if fits * len(data.y) < PARALLEL_WORK else cpu_count()

    fingerprints = {spec.store: store.fingerprint, **{uri: other.fingerprint for uri, other in others.items()}}
    cache = CellCache(spec.out, fingerprints, spec.store, data, (*splits, *conditions), spec.screen)
    cells = _cells(spec, methods, data, (*splits, *conditions), cache, n_jobs, executor, progress)
    main = [replace(cell, fitted=cell.fitted[: len(splits)]) for cell in cells]
    harder = [replace(cell, fitted=cell.fitted[len(splits) :]) for cell in cells]

    winners = select(methods, main)
    rows = method_rows(main, data, splits, winners)
    summary, selected, headline, comparisons, predictions = summarise(main, rows, data, splits, winners, spec)
    regime_rows, regimes = summarise_regimes(methods, main, harder, data, splits, conditions, spec)
    named = {name: family.cells for name, family in selected.items()}
    named |= {} if headline is None else {"sae": headline.sae, "baseline": headline.baseline}
    exported = {family: [m.name for m in methods].index(representative(names)) for family, names in named.items()}
    explanation, models = _export(
        spec, {spec.store: store, **others}, methods, main, data, splits, conditions, exported, n_jobs,
        versus_majority(comparisons, data),
    )  # fmt: skip
    result = StudyResult(
        spec=spec,
        data=data,
        splits=splits,
        conditions=conditions,
        split_sha256=split_sha256(data, splits),
        straddling=straddling(data, spec.split),
        c_grid=C_GRID,
        rows=rows,
        regime_rows=regime_rows,
        fold_rows=fold_rows(main, splits) + fold_rows(harder, conditions),
        summary=summary,
        selected=selected,
        headline=headline,
        comparisons=comparisons,
        regimes=regimes,
        overlaps=overlaps(harder, conditions),
        explanation=explanation,
        store_fingerprint=store.fingerprint,
        predictions=predictions,
        paths={},
        seconds=0.0,
    )
    for name, model in models.items():
        save_model(model, f"{spec.out}/models/{name}")
    paths = write_study(result) | {f"model_{name}": f"{spec.out}/models/{name}.json" for name in models}
    return replace(result, paths=paths, seconds=time.perf_counter() - started)


def _cells(
    spec: StudySpec,
    methods: Sequence[Method],
    data: StudyData,
    splits: Sequence[Split],
    cache: CellCache,
    n_jobs: int,
    executor: Executor,
    progress: Callable[[int, int, str], None] | None,
) -> list[Cell]:
    """The cell of every method, in the order of the methods: from the cache, or computed and kept there."""
    done = {method.name: cell for method in methods if (cell := cache.load(method)) is not None}
    if progress is not None and done:
        progress(len(done), len(methods), "done before")
    missing = [method for method in methods if method.name not in done]
    for cell in executor(plan_sources(missing, spec.store, data, splits, n_jobs, spec.screen)):
        cache.save(cell)
        done[cell.method.name] = cell
        if progress is not None:
            progress(len(done), len(methods), cell.method.name)
    return [done[method.name] for method in methods]


def _export(
    spec: StudySpec,
    stores: dict[str, FeatureStore],
    methods: Sequence[Method],
    cells: Sequence[Cell],
    data: StudyData,
    splits: Sequence[Split],
    conditions: Sequence[Split],
    exported: dict[str, int],
    n_jobs: int,
    majority: dict[str, object] | None,
) -> tuple[dict[str, object] | None, dict[str, Model]]:
    """Explanation of the SAE method that the headline names, and the models of its two methods that have files.

    Both are of the first split's training documents.
    """
    explanation, models = None, {}
    for family, m in exported.items():
        method, fitted = methods[m], cells[m].fitted[0]
        if method.kind not in (*SPARSE, "dense"):
            continue
        store = stores[method.store or spec.store]
        source = [m for m in methods if m.source == method.source]
        (task,) = plan_sources(source, spec.store, data, [*splits, *conditions], 1, spec.screen)
        pooled, matrix, final = fit_method(
            store, method, data, splits[0], fitted.value, read_source(store, task), n_jobs
        )
        about = {
            "classes": list(data.classes),
            "value": fitted.value,
            "bundle": bundle_sources(store.plan),
            "trained_on": {
                "identity": without_file_names(store.plan.identity) if spec.private else store.plan.identity,
                "d_sae": {sae.name: sae.d_sae for sae in store.schema.saes},
                "fingerprint": store.fingerprint,
                "split_sha256": split_sha256(data, splits),
                "seed": splits[0].seed,
                "documents": len(splits[0].train),
                "validation_macro_f1": fitted.validation_macro_f1,
            },
            "explanation": None,
        }
        if family == "sae":
            n_tokens = token_counts(stores[spec.store], data)
            explanation = {
                "majority": majority,
                **explain(method, data, splits[0], fitted.value, pooled, matrix, final, n_tokens),
                "errors": errors_made(data, splits[0], fitted, matrix, final),
            }
            explanation = without_text(explanation) if spec.private else explanation
            about["explanation"] = explanation
        frequency = None if method.kind == "dense" else document_frequency(matrix, final, splits[0].train)
        models[family] = pack(method, matrix, final, about, data.doc_id[splits[0].train], frequency)
    return explanation, models
