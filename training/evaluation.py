"""Evaluate the methods of a study in pieces that can run on any machine, and keep what is done for the next run.

A piece (`SourceTask`) is plain data: all methods that are made of one reading of the store. `run_source` reads those
features once and evaluates each method on every split. Where a piece runs, in which order, and which other pieces there
are changes no bit. `OutcomeCache` keeps each method's outcome under a hash of everything that decided it, so that a
study that was stopped, or whose grid has grown, goes on where it was.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby

import numpy as np

from featurestore.reader import FeatureStore
from featurestore.storage.files import atomic_write, filesystem, read_bytes
from training.documents.labels import StudyData
from training.documents.split import Split
from training.methods.matrices import MethodMatrix, derive, load_pooled
from training.methods.method import SPARSE, TEXTUAL, Method
from training.methods.streamed_selection import load_screened
from training.probes.catalogue import grid_of, revision_of
from training.probes.fit import evaluate
from training.probes.outcome import SplitOutcome

VERSION = 3  # grows when methods on the same data would come out otherwise; see `Probe.revision` too
SCREENING = 2  # likewise, of studies that screen
KEPT = 8_000_000  # non-zeros (64 MB) up to which what was read stays for the next matrix beside the one made of it


@dataclass(frozen=True)
class SourceTask:
    """Methods of one source, and all that is needed to evaluate them.

    Attributes:
        store: URI of the store that is read.
        methods: The methods, all with the same `Method.source`.
        data: The study's documents; without their texts where no method reads them.
        splits: Its splits, those of the regimes included.
        n_jobs: Threads.
        screen: Features to keep while they stream by, see `training.methods.streamed_selection`; None keeps all.
    """

    store: str
    methods: tuple[Method, ...]
    data: StudyData
    splits: tuple[Split, ...]
    n_jobs: int
    screen: int | None = None


@dataclass(frozen=True)
class MethodOutcome:
    """What came of one method: how many columns its matrix has, and the outcome on each split."""

    method: Method
    n_features: int
    splits: tuple[SplitOutcome, ...]


Executor = Callable[[Sequence[SourceTask]], Iterable[MethodOutcome]]
"""Runs pieces and hands out the outcomes of methods as they are done, in any order."""


def run_source(task: SourceTask) -> Iterator[MethodOutcome]:
    """Evaluate the methods of one source, those with the same matrix one after the other."""
    from threadpoolctl import threadpool_limits

    store = FeatureStore.open(task.store)
    # More threads inside a product would only move the last bits and fight over the cores.
    with threadpool_limits(1):
        pooled = matrix = None
        in_order = sorted(task.methods, key=lambda method: repr(method.without_probe))
        for _, same in groupby(in_order, key=lambda method: method.without_probe):
            methods, matrix = list(same), None  # the last matrix goes before the next one is read
            pooled = read_source(store, task) if pooled is None else pooled
            # A large matrix is changed in place; to read it again takes a second, to keep both takes both.
            alone = task.screen is None and methods[0].kind in SPARSE and pooled.X.nnz > KEPT
            matrix = derive(pooled, methods[0], in_place=alone)
            pooled = None if alone else pooled
            for method in methods:
                found = evaluate(method, matrix, task.data.y, len(task.data.classes), task.splits, n_jobs=task.n_jobs)
                yield MethodOutcome(method, 0 if matrix.X is None else int(matrix.X.shape[1]), found)


def read_source(store: FeatureStore, task: SourceTask) -> MethodMatrix:
    """What the methods of a piece are made of, screened if the study says so."""
    if task.screen is not None and task.methods[0].kind in SPARSE:
        return load_screened(store, task.methods, task.data, task.splits, task.screen)
    return load_pooled(store, task.methods[0], task.data)


def run_here(tasks: Sequence[SourceTask]) -> Iterator[MethodOutcome]:
    """The executor of one machine: one source in memory at a time, its methods on all threads."""
    for task in tasks:
        yield from run_source(task)


def plan_sources(
    methods: Sequence[Method],
    store: str,
    data: StudyData,
    splits: Sequence[Split],
    n_jobs: int,
    screen: int | None = None,
) -> tuple[SourceTask, ...]:
    """The methods by what they are made of."""
    by_source: dict[tuple[str | None, ...], list[Method]] = {}
    for method in methods:
        by_source.setdefault(method.source, []).append(method)
    # Pieces share what they have in common, so that an executor can send each of these objects once; the texts, which
    # can be most of all there is, go only where they are read.
    shared, without_text = tuple(splits), replace(data, text=None, columns={}, slices={})
    return tuple(
        SourceTask(
            mine[0].store or store,
            tuple(mine),
            data if mine[0].kind in TEXTUAL else without_text,
            shared,
            n_jobs,
            screen,
        )
        for mine in by_source.values()
    )


class OutcomeCache:
    """Finished methods in `out/cells`, each under a hash of its method, documents, labels, splits and store.

    Args:
        out: Directory of the study.
        fingerprints: URI -> fingerprint of every store.
        store: URI of the study's own store.
        data: The documents.
        splits: All splits.
        screen: Of the study.
    """

    def __init__(
        self,
        out: str,
        fingerprints: dict[str, str],
        store: str,
        data: StudyData,
        splits: Sequence[Split],
        screen: int | None = None,
    ) -> None:
        self._screen = screen
        self._fs, root = filesystem(out)
        self._root = f"{root}/cells"
        self._fingerprints, self._store = fingerprints, store
        digest = hashlib.sha256()
        for part in (data.doc_id, data.classes, data.text or ()):
            digest.update(json.dumps(list(part)).encode())
        digest.update(data.y.tobytes())
        for split in splits:
            digest.update(json.dumps([split.seed, split.outer, str(split.condition)]).encode() + split.fold.tobytes())
            digest.update(b"" if split.y_train is None else split.y_train.tobytes())
        self._problem = digest.hexdigest()
        self._numbers = {
            name: hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
            for name, values in data.numbers.items()
        }

    def load(self, method: Method) -> MethodOutcome | None:
        """The outcome of a method, if it is there and whole."""
        try:
            content = np.load(io.BytesIO(read_bytes(self._fs, self._path(method))), allow_pickle=False)
            n_splits = int(content["n_splits"])
            splits = tuple(
                SplitOutcome(
                    value=None if np.isnan(content[f"{s}.value"]) else float(content[f"{s}.value"]),
                    validation=content[f"{s}.validation"],
                    y_pred=content[f"{s}.y_pred"],
                    log_proba=content[f"{s}.log_proba"],
                    iterations=int(content[f"{s}.iterations"]),
                    converged=bool(content[f"{s}.converged"]),
                    top=content[f"{s}.top"],
                )
                for s in range(n_splits)
            )
            return MethodOutcome(method, int(content["n_features"]), splits)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
            return None  # not there, or cut off: it is computed again

    def save(self, outcome: MethodOutcome) -> None:
        """Keep an outcome; it appears whole or not at all."""
        arrays: dict[str, np.ndarray] = {
            "n_splits": np.array(len(outcome.splits)),
            "n_features": np.array(outcome.n_features),
        }
        for s, on_split in enumerate(outcome.splits):
            for name, value in vars(on_split).items():
                arrays[f"{s}.{name}"] = np.array(np.nan if value is None else value)
        sink = io.BytesIO()
        np.savez(sink, **arrays)  # type: ignore[arg-type]
        self._fs.create_dir(self._root, recursive=True)
        atomic_write(self._fs, self._path(outcome.method), sink.getvalue())

    def _path(self, method: Method) -> str:
        named = asdict(method)
        del named["screen"]  # follows from the study's own
        if method.kind in ("numbers", "beside"):
            named["column"] = self._numbers[str(method.column)]
        if method.class_weight is None:  # studies without have the keys of earlier versions
            del named["class_weight"]
        decided = {
            "version": VERSION + revision_of(method.probe),
            "library": importlib.metadata.version("scikit-learn"),
            "store": self._fingerprints[method.store or self._store],
            "problem": self._problem,
            "method": {**named, "name": "", "store": ""},
            "grid": grid_of(method.probe),
            "screen": None if self._screen is None else [self._screen, SCREENING],
        }
        key = hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()
        return f"{self._root}/{key[:32]}.npz"
