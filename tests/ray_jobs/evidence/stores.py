"""Stores of tiny jobs, computed in this process without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from featurestore import FeatureStore, create_store, finish_store
from ray_jobs.planning.job_plan import make_plan
from ray_jobs.run.worker import Worker, WorkerTask
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
    from featurestore.index.lookup import document_view

    wanted = {}
    for doc_id in store.documents().collect()["doc_id"].to_list():
        top = document_view(store, doc_id, n_features, sae).top[sae]
        if len(top) == n_features and len(wanted) < n_documents:
            wanted[doc_id] = [(sae, feature.feature) for feature in top]
    return wanted
