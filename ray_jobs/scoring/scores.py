"""Write predictions in place of features: the `UnitOutput` of a scoring job, whose store keeps them as columns.

Such a store has no SAE columns. All else is a store's: one row a document in input order, one part a unit, the part
file as the commit, a manifest at the end, the same bytes however often the run was killed. The commands `status`,
`verify` and `show` read it, and so does any reader of Parquet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.format.rows import PartRows
from featurestore.format.schema import StoreSchema
from featurestore.models.model import Model
from featurestore.models.predict import predict_rows
from featurestore.models.rule import Rule
from featurestore.models.table import PredictionTable
from ray_jobs.corpus.extracted import part_rows
from ray_jobs.scoring.model_job import features_of, only_read

if TYPE_CHECKING:
    from ray_jobs.backbone.bundle import Bundle
    from ray_jobs.corpus.read import DocumentRows
    from ray_jobs.engine.extractor import ExtractedRows, Extractor
    from ray_jobs.spec import CorpusSpec

TYPES = {"string": "string", "double": "float64", "bool": "bool"}  # Arrow's names -> those of kept columns
NOT_KEPT = ("doc_id", "error")  # columns that every store has


@dataclass(frozen=True)
class Scores:
    """A model and how its answers are written; plain data, which travels to workers.

    Attributes:
        model: The model.
        rule: What becomes of documents with which something is wrong.
        explain: Features to name in each direction.
    """

    model: Model
    rule: Rule
    explain: int = 0

    def identity(self) -> dict[str, Any]:
        """What of it decides a value, for the fingerprint."""
        digest = hashlib.sha256(json.dumps(dict(self.model.header), sort_keys=True).encode())
        for name, tensor in sorted(self.model.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
            digest.update(np.ascontiguousarray(tensor).tobytes())
        rule = {"on_error": self.rule.on_error, "accept_truncated": self.rule.accept_truncated}
        return {"model": digest.hexdigest(), "method": self.model.header["method"], **rule, "explain": self.explain}

    def corpus(self, corpus: CorpusSpec) -> CorpusSpec:
        """The corpus as it is."""
        return corpus

    def bundle(self, bundle: Bundle) -> Bundle:
        """A bundle without the SAEs that the model does not read."""
        return only_read(self.model, bundle)

    def schema(self, keep_types: Mapping[str, str]) -> StoreSchema:
        """The columns of the store of scores, behind those that the corpus' rows keep.

        Raises:
            StoreError: A kept column has the name of one of them.
        """
        own = tuple((field.name, TYPES[str(field.type)]) for field in self._table.schema if field.name not in NOT_KEPT)
        return StoreSchema(keep=(*keep_types.items(), *own), saes=(), dense=())

    def engine(self, bundle: Bundle, settings: Mapping[str, Any], features: StoreSchema) -> ScoreEngine:
        """The extractor of the features that the model reads, and the model."""
        from ray_jobs.engine.extractor import Extractor, ExtractSettings

        return ScoreEngine(
            self, Extractor(bundle, ExtractSettings(**settings), features_of(self.model, bundle)), features
        )

    def rows(self, features: StoreSchema, documents: DocumentRows, extracted: ExtractedRows) -> PartRows:
        """The rows of a part.

        Args:
            features: What a store of the features would have; it says how values are rounded.
            documents: N documents.
            extracted: What the engine found in them.
        """
        rows = part_rows(documents, extracted)
        found = predict_rows(self.model, features, rows, self.explain)
        decisions, problems = self.rule.decide(self.model.classes, found), self.rule.problems(found)
        table = self._table.rows(found, decisions, problems)
        scores = {name: table.column(name).to_pylist() for name in table.column_names if name not in NOT_KEPT}
        return PartRows(
            doc_id=rows.doc_id,
            keep={**documents.keep, **scores},
            n_tokens=rows.n_tokens,
            truncated=rows.truncated,
            error=rows.error,
            sparse={},
            dense={},
        )

    @property
    def _table(self) -> PredictionTable:
        return PredictionTable(self.model, None, bool(self.explain))


@dataclass(frozen=True)
class ScoreEngine:
    """Extracts the features that a model reads, and predicts from them: a `UnitEngine`."""

    scores: Scores
    extractor: Extractor
    features: StoreSchema

    def rows(self, documents: DocumentRows, on_progress: Callable[[int, int], None]) -> PartRows:
        """The rows of a part."""
        extracted = self.extractor.extract(documents.text, documents.error, on_progress)
        return self.scores.rows(self.features, documents, extracted)
