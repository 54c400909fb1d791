"""The methods of a study and the matrix of each: SAE cells stay sparse from the store to the solver.

A `Method` is what a classifier sees and which classifier it is. `load_pooled` reads the pooled features of a group of
methods once, `derive` makes each method's matrix of them; columns that are zero for all documents of the study are
dropped (an L2 probe gives such a column the weight zero anyway). What is learnt (thresholds, scales, selections)
belongs to the fold, not to the matrix: `preparation` is a scikit-learn transformer fitted on training rows only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.base.dense_names import parse_dense_name
from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.poolings import stored_pool
from featurestore.errors import StudyError
from featurestore.storage.files import shown
from featurestore.tables.compare import match_ids
from training.documents.labels import StudyData
from training.methods.baselines import CountsToTfidf, count_terms
from training.spec import FeatureSpec, StudySpec

if TYPE_CHECKING:
    from featurestore.reader import FeatureStore


@dataclass(frozen=True)
class Method:
    """What one classifier of the study sees, and which classifier it is.

    Attributes:
        name: Unique in a study, e.g. "l12_16k:max>1", "l12_16k:sum tree", "hidden_mean", "tfidf", "majority".
        kind: "sae", "control" (an SAE with random weights), "dense", "tfidf", "char" or "majority".
        sae, pool, binarize: The cell, for SAEs; names of SAEs side by side are joined by "+".
        column: The dense column, for kind "dense".
        scale, select, k, min_documents: What is learnt before the probe, see `training.spec.FeatureSpec`.
        screen: Features that pass by class means before `select` chooses among them; None lets all pass.
        store: URI of another store than the study's.
        probe: One of `training.spec.PROBES`; None for majority.
    """

    name: str
    kind: str
    sae: str | None = None
    pool: str | None = None
    binarize: float | str | None = None
    column: str | None = None
    scale: str = "max_abs"
    select: str | None = None
    k: int | None = None
    min_documents: int = 1
    screen: int | None = None
    store: str | None = None
    probe: str | None = "logistic_l2"

    @property
    def source(self) -> tuple[str | None, ...]:
        """Methods with the same source are made of one reading."""
        kind = "sae" if self.kind in SPARSE else self.kind
        return (kind, self.store, self.sae, self.pool, self.column)

    @property
    def cell(self) -> Method:
        """The method without its name and probe: methods with the same cell share a matrix."""
        return replace(self, name="", probe=None)


SPARSE = ("sae", "control")  # kinds whose matrix is made of SAE features
TEXTUAL = ("tfidf", "char")  # kinds whose matrix is made of the texts


@dataclass(frozen=True)
class MethodMatrix:
    """The matrix of one method for the N documents of a study.

    Attributes:
        X: CSR float32 [N, K] (sae, float32; tfidf: term counts, float64), dense float64 [N, K], or None (majority).
        column: int64 [K], the feature of the SAE (of SAEs side by side: of all of them, counted on) that each column
            is; None for other kinds.
        names: object [K], "l12_16k:1234" for each column; None for other kinds.
    """

    X: Any
    column: np.ndarray | None = None
    names: np.ndarray | None = None


def plan_methods(
    store: FeatureStore, spec: StudySpec, others: dict[str, FeatureStore] | None = None
) -> tuple[Method, ...]:
    """Every method of a study: baselines, then SAE cells in the order of the spec, each with every probe.

    Args:
        store: The study's store.
        spec: The study.
        others: URI -> open store, for features that name one.

    Raises:
        StudyError: The store has no such SAE, pooling or dense column.
    """
    cells: list[Method] = []
    for name, kind in (("tfidf", "tfidf"), ("char_ngrams", "char")):
        if name in spec.baselines:
            cells.append(Method(name, kind))
    for name in ("hidden_mean", "hidden_last"):
        if name in spec.baselines:
            cells += _dense_methods(store, name)
    for feature in spec.features:
        at = store if feature.store is None else (others or {})[feature.store]
        pools = {sae.name: sae.pools for sae in at.schema.saes}
        for sae in feature.sae:
            if sae not in pools:
                there = ", ".join(pools) or "none"
                hint = did_you_mean(sae, pools)
                raise StudyError(f"features: {shown(at.uri)} has no SAE '{sae}'; it has: {there}{hint}")
            for pool in feature.pool:
                stored = stored_pool(pool)
                if stored not in pools[sae]:
                    there = ", ".join(pools[sae])
                    raise StudyError(
                        f"features: {shown(at.uri)} has no pooling '{stored}' of SAE '{sae}'; it has: {there}; "
                        "choose one of these or extract again with it"
                    )
        cells += _sae_methods(feature, spec.screen)
    methods = [Method("majority", "majority", probe=None)]
    for cell in cells:
        for probe in spec.probes:
            tail = "" if probe == "logistic_l2" else f" {probe}"
            methods.append(replace(cell, name=f"{cell.name}{tail}", probe=probe))
    return tuple(methods)


def _sae_methods(feature: FeatureSpec, screen: int | None) -> list[Method]:
    """One cell for each pooling, threshold, scale and selection; where features are screened, all are selections."""
    sae, methods = "+".join(feature.sae), []
    prefix = "" if feature.store is None else f"{feature.store.rstrip('/').rsplit('/', 1)[-1]}/"
    for pool in feature.pool:
        for threshold in feature.binarize:
            for scale in feature.scale:
                for select in feature.select:
                    name = f"{prefix}{sae}:{pool}"
                    if threshold is not None:
                        name += ">learnt" if threshold == "learnt" else f">{threshold:g}"
                    name += "" if scale == "max_abs" else f" {scale}"
                    name += "" if select is None else f" top{select.k}({select.by})"
                    name += "" if feature.min_documents == 1 else f" df{feature.min_documents}"
                    method = Method(
                        name=name,
                        kind="control" if feature.control else "sae",
                        sae=sae,
                        pool=pool,
                        binarize=threshold,
                        scale=scale,
                        select=select.by if select else ("class_means" if screen else None),
                        k=select.k if select else screen,
                        min_documents=feature.min_documents,
                        screen=screen if select else None,
                        store=feature.store,
                    )
                    methods.append(method)
    return methods


def _dense_methods(store: FeatureStore, name: str) -> list[Method]:
    kind = name.removeprefix("hidden_")
    hooks = {d.name: read.hook for d in store.schema.dense if (read := parse_dense_name(d.name)) and read.kind == kind}
    if not hooks:
        there = ", ".join(dense.name for dense in store.schema.dense) or "none"
        raise StudyError(
            f"baselines: {shown(store.uri)} has no {name} column (dense columns: {there}); "
            f"extract again with 'hidden: [{kind}]' or drop the baseline"
        )
    if len(hooks) == 1:
        return [Method(name, "dense", column=column) for column in hooks]
    return [Method(f"{name}:{hook}", "dense", column=column) for column, hook in hooks.items()]


def load_pooled(store: FeatureStore, method: Method, data: StudyData) -> MethodMatrix:
    """Read what all methods of one `source` are made of, for the documents of a study, in their order.

    Args:
        store: The store that the method names (the study's, if it names none).
        method: Any method of the source.
        data: The study's documents.

    Raises:
        StudyError: A dense vector is missing, a document is not in the store, or the texts hold no word.
    """
    if method.kind == "majority":
        return MethodMatrix(None)
    if method.kind in TEXTUAL:
        assert data.text is not None
        return MethodMatrix(count_terms(data.text, method.kind))
    if method.kind == "dense":
        assert method.column is not None
        dense = np.asarray(store.dense(method.column))[data.position].astype(np.float64)
        if not np.isfinite(dense).all():
            bad = data.doc_id[~np.isfinite(dense).all(axis=1)][0]
            raise StudyError(
                f"{shown(store.uri)}: column '{method.column}' has no value for document '{bad}'; verify the store"
            )
        return MethodMatrix(dense)
    assert method.sae is not None and method.pool is not None
    blocks, names = [], []
    for sae in method.sae.split("+"):
        matrix = store.matrix(sae, pool=method.pool)
        rows: Any = data.position if method.store is None else positions(matrix.doc_id, data.doc_id)
        if len(matrix.doc_id) == len(rows) and (rows == np.arange(len(rows))).all():
            rows = slice(None)
        if method.store is None and list(matrix.doc_id[rows]) != list(data.doc_id):
            raise StudyError(
                f"{shown(store.uri)}: features and documents are in different orders; run verify on the store"
            )
        blocks.append(matrix.X if isinstance(rows, slice) else matrix.X[rows])
        names += [f"{sae}:{f}" for f in range(matrix.X.shape[1])]
    X = blocks[0] if len(blocks) == 1 else _beside(blocks)
    X.sort_indices()
    X, fires = _without_empty_columns(X)
    return MethodMatrix(X, fires, np.array(names, dtype=object)[fires])


def derive(pooled: MethodMatrix, method: Method, in_place: bool = False) -> MethodMatrix:
    """The matrix of one method from what `load_pooled` read: threshold, square root, columns that fire.

    Args:
        pooled: What was read; never changed, unless
        in_place: it may be, because nobody needs it any more.
        method: The method.

    Raises:
        StudyError: No feature of the cell fires for any document.
    """
    if method.kind not in SPARSE:
        return pooled
    X, column, names = pooled.X, pooled.column, pooled.names
    assert column is not None and names is not None
    if isinstance(method.binarize, float):
        X = X if in_place else X.copy()
        X.data = (X.data > method.binarize).astype(np.float32)
        X.eliminate_zeros()
    X, fires = _without_empty_columns(X)
    if not len(fires):
        raise StudyError(f"{method.name}: no feature fires for any document; lower the threshold or choose another SAE")
    if method.scale == "sqrt":
        X = X.copy() if X is pooled.X and not in_place else X
        X.data = np.sqrt(X.data)
    return MethodMatrix(X, column[fires], names[fires])


def _without_empty_columns(X: Any) -> tuple[Any, np.ndarray]:
    """(X without columns that hold nothing, which columns are left); values are shared, not copied."""
    from scipy.sparse import csr_matrix

    there = np.bincount(X.indices, minlength=X.shape[1]) > 0
    fires = np.flatnonzero(there)
    if len(fires) == len(there):
        return X, fires
    place = (np.cumsum(there) - 1).astype(X.indices.dtype)
    return csr_matrix((X.data, place[X.indices], X.indptr), shape=(X.shape[0], len(fires))), fires


def load_matrix(store: FeatureStore, method: Method, data: StudyData) -> MethodMatrix:
    """`load_pooled` and `derive` in one, for a single method."""
    return derive(load_pooled(store, method, data), method)


def positions(there: Iterable[str], wanted: Sequence[str] | np.ndarray) -> np.ndarray:
    """Rows of `wanted` ids among the ids `there`, int64.

    Raises:
        StudyError: One of them is not there.
    """
    import polars as pl

    ours, theirs = (pl.Series(list(ids), dtype=pl.String) for ids in (there, wanted))
    row = match_ids(ours, theirs).row
    if (row < 0).any():
        missing = theirs[int((row < 0).argmax())]
        raise StudyError(f"features: document '{missing}' is missing from a store of the study; align the stores by id")
    return row


def scaler(kind: str) -> Any:
    """The unfitted scikit-learn transformer of a kind of method; fit it on training rows only.

    SAE features are divided by their largest value (keeps zeros, no centring), dense vectors are standardised, term
    counts become sublinear TF-IDF.
    """
    from sklearn.preprocessing import MaxAbsScaler, StandardScaler

    by_kind = {"dense": StandardScaler, "tfidf": CountsToTfidf, "char": CountsToTfidf}
    return by_kind.get(kind, MaxAbsScaler)()


def preparation(method: Method) -> Any:
    """Everything learnt before the probe as one unfitted scikit-learn pipeline; fit it on training rows and classes.

    In the order: learnt thresholds, document frequency, scale, screen, selection. `derive` takes square roots.
    """
    from sklearn.pipeline import make_pipeline

    from training.methods.transformers import LearntThresholds, MinDocuments, SelectTop

    steps: list[Any] = []
    if method.binarize == "learnt":
        steps.append(LearntThresholds())
    if method.min_documents > 1:
        steps.append(MinDocuments(method.min_documents))
    steps.append(scaler(method.kind))
    if method.screen is not None:
        steps.append(SelectTop(method.screen, "class_means"))
    if method.select is not None and method.k is not None:
        steps.append(SelectTop(method.k, method.select))
    return make_pipeline(*steps)


@dataclass(frozen=True)
class Columns:
    """A fitted `preparation` of SAE or dense columns as plain arrays (K' of K columns are kept).

    Attributes:
        kept: int64 [K'], which columns.
        scale: float64 [K'], what they are divided by, after
        shift: float64 [K'], what is subtracted, or None; and after
        threshold: float64 [K'], learnt thresholds that make them 0 or 1, or None.
    """

    kept: np.ndarray
    scale: np.ndarray
    shift: np.ndarray | None = None
    threshold: np.ndarray | None = None


def columns_of(pipeline: Any, n_columns: int) -> Columns:
    """What a fitted `preparation` does, for kinds whose columns it keeps or drops one by one."""
    kept, scale = np.arange(n_columns), np.ones(n_columns)
    shift = threshold = None
    for _, step in pipeline.steps:
        if hasattr(step, "threshold_"):
            threshold = step.threshold_
        elif hasattr(step, "get_support"):
            mask = step.get_support()
            kept, scale = kept[mask], scale[mask]
            threshold = threshold if threshold is None else threshold[mask]
        else:
            scale, shift = step.scale_, getattr(step, "mean_", None)
    return Columns(kept, np.asarray(scale), shift, threshold)


def _beside(blocks: Sequence[Any]) -> Any:
    from scipy.sparse import hstack

    return hstack(blocks, format="csr")
