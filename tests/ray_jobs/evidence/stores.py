"""Stores of tiny jobs, computed in this process without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from featurestore import FeatureStore, create_store, finish_store
from ray_jobs.planning.job_plan import make_plan
from ray_jobs.workers.worker import Worker, WorkerTask
from tests.ray_jobs.jobs import make_job


def extracted(models: Path, corpus: Path, store: Path, /, **changes: Any) -> FeatureStore:
    """The store of `make_job`, complete."""
    plan = make_plan(make_job(models, corpus, store, **changes))
    create_store(str(store), plan.store)
    worker = Worker(WorkerTask.of(plan))
    worker.open()
    finish_store(str(store), [worker.run(unit).record for unit in plan.units])  # type: ignore[union-attr]
    return FeatureStore.open(str(store))


def strongest(store: FeatureStore, n_documents: int, n_features: int, sae: str = "tiny") -> dict[str, Any]:
    """Document -> its strongest features, for documents that have any."""
    X, doc_ids = store.matrix(sae, "max")
    rows = np.flatnonzero(np.diff(X.indptr) >= n_features)[:n_documents]
    order = np.argsort(-X[rows].toarray(), axis=1, kind="stable")[:, :n_features]
    return {str(doc_ids[row]): [(sae, f) for f in own] for row, own in zip(rows, order.tolist(), strict=True)}


def pooled(store: FeatureStore, pool: str, sae: str = "tiny") -> dict[tuple[str, int], float]:
    """(document, feature) -> what the store has, where that is not 0."""
    X, doc_ids = store.matrix(sae, pool)
    X = X.tocoo()
    ids = [str(doc_ids[row]) for row in X.row]
    return dict(zip(zip(ids, X.col.tolist(), strict=True), X.data.tolist(), strict=True))
