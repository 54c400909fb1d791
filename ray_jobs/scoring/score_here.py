"""Score documents in this process: a bundle cut to what a model reads, and the model.

It needs no Ray and no store. Values are pooled and rounded as the store's of a job would be, so scores are those that
extracting and then predicting gives, up to the rounding that a document's company in a batch causes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from featurestore.format.store_plan import StorePlan
from featurestore.models.model import Model
from featurestore.models.predict import Predicted, check_model, predict_rows
from featurestore.models.reasons import Fired, Reason
from ray_jobs.backbone.backbone import default_device
from ray_jobs.corpus.extracted import part_rows
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.engine.token_values import TokenReader, TokenValues
from ray_jobs.planning.identity import identity
from ray_jobs.planning.job_plan import store_schema
from ray_jobs.prepare.compute_settings import extract_settings, settle, settle_attention
from ray_jobs.scoring.model_job import bundle_of, features_of, job_of, only_read

if TYPE_CHECKING:
    from ray_jobs.corpus.read import DocumentRows

LOT = 16  # documents whose reasons are looked up together: their features are computed for all of them
TOKENS = 5  # named of one feature in one document


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
        self._reader: TokenReader | None = None

    def score(self, documents: DocumentRows) -> Predicted:
        """What the model says of some documents."""
        extracted = self._extractor.extract(documents.text, documents.error)
        found = predict_rows(self._model, self._schema, part_rows(documents, extracted), self._explain)
        if found.reasons is None:
            return found
        lots = [slice(start, start + LOT) for start in range(0, len(found), LOT)]
        told = [each for lot in lots for each in self._with_tokens(documents.text[lot], found.reasons[lot])]
        return replace(found, reasons=told)

    def _with_tokens(
        self, texts: Sequence[str | None], given: Sequence[tuple[Reason, ...]]
    ) -> list[tuple[Reason, ...]]:
        """The reasons of some documents with the tokens that fired, for which the documents are run once more."""
        if self._reader is None:
            self._reader = TokenReader(self._extractor.bundle, self._extractor.settings, {})
        features: dict[str, dict[int, int]] = {}  # SAE -> feature -> its column
        for reason in (reason for each in given for reason in each):
            columns = features.setdefault(reason.sae, {})
            columns.setdefault(reason.feature, len(columns))
        asked = [text if each else None for text, each in zip(texts, given, strict=True)]
        reader = self._reader.wanting({sae: list(columns) for sae, columns in features.items()})
        values = reader.read([text for text in asked if text is not None])
        return [
            each if text is None else _located(text, each, next(values), features)
            for text, each in zip(asked, given, strict=True)
        ]


def _located(
    text: str, given: tuple[Reason, ...], found: TokenValues, features: Mapping[str, Mapping[int, int]]
) -> tuple[Reason, ...]:
    """Reasons with the tokens of one document at which their features fire."""
    if found.error is not None:
        return given
    told = []
    for reason in given:
        value_T = found.values[reason.sae][:, features[reason.sae][reason.feature]]
        strongest = [t for t in np.argsort(-value_T, kind="stable")[:TOKENS] if value_T[t] > 0]
        tokens = [
            Fired(
                found.names[t] or text[found.start[t] : found.stop[t]],
                int(found.start[t]),
                int(found.stop[t]),
                float(value_T[t]),
            )
            for t in strongest
        ]
        told.append(replace(reason, tokens=tuple(tokens)))
    return tuple(told)
