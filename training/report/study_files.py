"""What a study's directory says, read and checked as if somebody else had written it.

The page is made of these files alone, so it can be made again by whoever has the directory. `results.json` is needed;
what else is missing (an older study, a study without SAE features) is missing on the page too, where it says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore.errors import StudyError
from featurestore.storage.files import list_files, reached, read_bytes, read_json, sha256_file, shown
from training.report.kept_evidence import KeptEvidence
from training.spec import PRIVATE

SUMMARY = "results.json"
HASHED = ("results.json", "results.parquet", "predictions.parquet", "folds.parquet", "regimes.parquet", "split.parquet")
EXPLAINED = ("explanation.json", "models/sae.json", "models/sae.safetensors", "models/baseline.json")


@dataclass(frozen=True)
class Answers:
    """The test predictions of one method, all seeds in one list (n rows).

    Attributes:
        seed: Of each, "3" or "3.1" where there are outer folds.
        doc_id, y_true, y_pred: Of each.
        score: Log-probability of each class, [n][classes].
    """

    seed: Sequence[str]
    doc_id: Sequence[str]
    y_true: Sequence[str]
    y_pred: Sequence[str]
    score: Sequence[Sequence[float]]


@dataclass(frozen=True)
class StudyFiles:
    """A finished study.

    Attributes:
        uri: Its directory.
        summary: results.json.
        rows: results.parquet, a mapping for each method and split.
        explanation: explanation.json, or None.
        models: Family ("sae", "baseline") -> header of the model file.
        sha256: Name -> hash of each file that is there.
        evidence: Tokens kept beside the study.
    """

    uri: str
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    explanation: Mapping[str, Any] | None
    models: Mapping[str, Mapping[str, Any]]
    sha256: Mapping[str, str]
    evidence: KeptEvidence
    private: bool = False
    _predictions: pa.Table | None = field(default=None, repr=False)

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return [str(name) for name in self.summary["documents"]["classes"]]

    @property
    def store(self) -> str:
        """URI of the store, as the study has it."""
        return str(self.summary["spec"]["store"])

    @property
    def of_images(self) -> bool:
        """Whether its documents are images, as far as its model of features says."""
        corpus: Any = self.models.get("sae")
        for key in ("trained_on", "identity", "corpus"):
            corpus = corpus.get(key) if isinstance(corpus, Mapping) else None
        return isinstance(corpus, Mapping) and bool(corpus.get("image"))

    def answers(self, method: str) -> Answers | None:
        """The predictions of a method; None if there are none."""
        if self._predictions is None:
            return None
        table = self._predictions.filter(pc.equal(self._predictions["method"], method))
        if not table.num_rows:
            return None
        columns = table.to_pydict()
        outer = [f".{o}" if o else "" for o in columns["outer"]]
        seed = [f"{s}{o}" for s, o in zip(columns["seed"], outer, strict=True)]
        return Answers(seed, columns["doc_id"], columns["y_true"], columns["y_pred"], columns["score"])


def is_study(uri: str) -> bool:
    """Whether a directory holds the results of a study."""
    fs, root = reached(uri)
    try:
        return SUMMARY in list_files(fs, root)
    except OSError:
        return False


def read_study(uri: str, private: bool = False) -> StudyFiles:
    """Read a study's directory.

    Args:
        uri: Its directory or URL.
        private: Whether texts, ids and file names stay out whatever the study says.

    Raises:
        StudyError: There is no finished study, or a file of it is damaged.
    """
    fs, root = reached(uri)
    if not is_study(uri):
        raise StudyError(f"{shown(uri)}: holds no {SUMMARY}, so no finished study; run it with `sparsemill study`")
    name = SUMMARY
    try:
        summary = read_json(fs, f"{root}/{SUMMARY}")
        if not _is_summary(summary):
            raise ValueError("it does not hold what a study writes")
        there = list_files(fs, root)
        name = "results.parquet"
        rows = _table(fs, root, name).to_pylist() if name in there else []
        name = "predictions.parquet"
        predictions = _table(fs, root, name) if name in there else None
        name = "explanation.json"
        explanation = read_json(fs, f"{root}/{name}") if name in there else None
        name = "models"
        models = {
            family: read_json(fs, f"{root}/models/{family}.json")
            for family in ("sae", "baseline")
            if f"{family}.json" in list_files(fs, f"{root}/models")
        }
        hashes = {name: sha256_file(fs, f"{root}/{name}") for name in HASHED if name in there}
        hashes |= {name: sha256_file(fs, f"{root}/{name}") for name in EXPLAINED if _there(fs, f"{root}/{name}")}
    except (OSError, ValueError, pa.ArrowException) as exc:
        raise StudyError(f"{shown(uri)}/{name}: is damaged ({str(exc).splitlines()[0]}); run the study again") from None
    return StudyFiles(
        uri=str(uri),
        summary=summary,
        rows=rows,
        explanation=explanation if isinstance(explanation, dict) else None,
        models={family: header for family, header in models.items() if isinstance(header, dict)},
        sha256=hashes,
        evidence=KeptEvidence.beside(str(uri), models.get("sae")),
        private=private or _private(summary["spec"].get("text")),
        _predictions=predictions,
    )


def _is_summary(summary: Any) -> bool:
    mappings = ("spec", "documents", "store", "split", "selected", "test_set")
    return (
        isinstance(summary, dict)
        and all(isinstance(summary.get(key), dict) for key in mappings)
        and isinstance(summary.get("methods"), list)
    )


def _private(text: Any) -> bool:
    return bool(text.get("private")) if isinstance(text, Mapping) else text == PRIVATE


def _table(fs: Any, root: str, name: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(read_bytes(fs, f"{root}/{name}")))


def _there(fs: Any, path: str) -> bool:
    return bool(fs.get_file_info(path).type.name == "File")
