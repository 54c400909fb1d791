"""One process that scores documents: a bundle cut to what a model reads, and the model.

It needs no Ray and no store. Values are pooled and rounded as the store's of a job would be, so scores are those that
extracting and then predicting gives, up to the rounding that a document's company in a batch causes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from featurestore.format.store_plan import StorePlan
from featurestore.models.model import Model
from featurestore.models.predict import Predicted, check_model, predict_rows
from ray_jobs.corpus.extracted import part_rows
from ray_jobs.engine.backbone import default_device
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.planning.identity import identity
from ray_jobs.planning.job_plan import store_schema
from ray_jobs.prepare.compute import extract_settings, settle, settle_attention
from ray_jobs.scoring.model_job import bundle_of, features_of, job_of, only_read

if TYPE_CHECKING:
    from ray_jobs.corpus.read import DocumentRows


class Scorer:
    """A model with the engine that its documents go through.

    Args:
        model: A trained model.
        explain: Features to name in each direction.
        warn: Called with what is worth knowing.
        note: Called with a line of text before what may take long.

    Raises:
        UsageError: The model's bundle cannot be had, or is not what it was trained on.
    """

    def __init__(self, model: Model, explain: int, warn: Callable[[str], None], note: Callable[[str], None]) -> None:
        bundle = bundle_of(model, note)
        job = job_of(model, bundle)
        bundle = only_read(model, bundle)
        trained, device = model.header["trained_on"]["identity"], default_device()
        same = (trained.get("compute") or {}).get("device") == device  # settings for other hardware say nothing here
        compute = settle_attention(settle(job, trained if same else None, device), bundle)
        self._model, self._explain = model, explain
        self._schema = store_schema(job, bundle, {})
        plan = StorePlan(self._schema, identity(job, bundle, compute, (), {}), {}, [], 0, {})
        for caution in check_model(model, plan, "the bundle on this machine"):
            warn(caution.sentence)
        # All cores for one process: threads are the caller's to set, where there are several processes.
        settings = {**extract_settings(job, compute), "threads": 0}
        self._extractor = Extractor(bundle, ExtractSettings(**settings), features_of(model, bundle))

    def score(self, documents: DocumentRows) -> Predicted:
        """What the model says of some documents."""
        extracted = self._extractor.extract(documents.text, documents.error)
        rows = part_rows(documents, extracted)
        return predict_rows(self._model, self._schema, rows, self._explain)
