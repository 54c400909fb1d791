"""STUDY.yaml as frozen, validated models: which labels, which features, which baselines, how to split.

Everything that decides a number of the study stands here; how many processes compute it does not. Unknown keys and
impossible values are refused in one sentence by `featurestore.specfile`; whether a store has what is asked for is
found out by `training.study`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from featurestore.errors import StudyError
from featurestore.specfile import load_mapping, parse_spec

BASELINES = ("tfidf", "hidden_mean", "hidden_last", "majority")
PROBES = ("logistic_l2",)
_POOL = re.compile(r"max|sum|mean|count|last|top[1-9][0-9]*")


def _as_list(value: Any) -> Any:
    """Let `pool: max` stand for `pool: [max]`."""
    return value if isinstance(value, list | tuple) else [value]


_Threshold = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # SAE activations are >= 0, so is a threshold on them


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TableColumn(_Model):
    """A column of a table outside the store, joined by document id.

    Attributes:
        path: A Parquet, CSV or JSON-lines file.
        id: Its column that holds the store's `doc_id`.
        column: Its column with the values.
    """

    path: str = Field(min_length=1)
    id: str = Field(min_length=1)
    column: str = Field(min_length=1)


class FeatureSpec(_Model):
    """One SAE and the document vectors to make of it: every pooling with every threshold is one cell of the study.

    Attributes:
        sae: Name of the SAE in the store.
        pool: Poolings: max, sum, mean (sum / n_tokens), count, last, top<N>.
        binarize: null keeps the pooled value; a threshold t makes it 1 where the value exceeds t, else 0.
    """

    sae: str = Field(min_length=1)
    pool: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(default=("max",), min_length=1)
    binarize: Annotated[tuple[_Threshold | None, ...], BeforeValidator(_as_list)] = Field(default=(None,), min_length=1)

    @field_validator("pool")
    @classmethod
    def _known_pools(cls, pools: tuple[str, ...]) -> tuple[str, ...]:
        for pool in pools:
            if _POOL.fullmatch(pool) is None:
                raise ValueError(f"unknown pooling '{pool}'; use max, sum, mean, count, last or top<N>")
        return _unique(pools, "pooling")

    @field_validator("binarize")
    @classmethod
    def _unique_thresholds(cls, thresholds: tuple[float | None, ...]) -> tuple[float | None, ...]:
        return _unique(thresholds, "threshold")


class SplitSpec(_Model):
    """How documents are divided, once for each seed and for all methods alike.

    Attributes:
        test: Share of the documents held out (with `group` it is approximate, for groups stay whole).
        folds: Inner folds of the remaining documents, which choose C and the cell.
        seeds: How many splits are drawn; their seeds are 0, 1, ...
        group: A kept column whose equal values stay on one side of every split, or null.
    """

    test: float = Field(default=0.2, gt=0.0, le=0.5)
    folds: int = Field(default=5, ge=2, le=50)
    seeds: int = Field(default=5, ge=1, le=100)
    group: str | None = None


class StudySpec(_Model):
    """A study: one store, one question, many methods on the same splits.

    Attributes:
        store: URI of a complete feature store.
        label: The class of each document: a kept column of the store, or a column of another table.
        text: Where TF-IDF reads the text; by default the corpus' text column, if the store keeps it.
        features: The SAE cells.
        baselines: Any of tfidf, hidden_mean, hidden_last, majority; majority is always added.
        probes: The classifiers; logistic_l2 is the one there is.
        split: How documents are divided.
        bootstrap: Resamples behind each interval.
        out: Directory for the results.
    """

    store: str = Field(min_length=1)
    label: str | TableColumn
    text: str | TableColumn | None = None
    features: tuple[FeatureSpec, ...] = ()
    baselines: tuple[str, ...] = ()
    probes: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ("logistic_l2",)
    split: SplitSpec = SplitSpec()
    bootstrap: int = Field(default=1000, ge=100, le=100_000)
    out: str = Field(default="study", min_length=1)

    @field_validator("baselines")
    @classmethod
    def _known_baselines(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in BASELINES:
                raise ValueError(f"unknown baseline '{name}'; use {', '.join(BASELINES)}")
        return _unique(names, "baseline")

    @field_validator("probes")
    @classmethod
    def _known_probes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in PROBES:
                raise ValueError(f"probe '{name}' is not available; use {', '.join(PROBES)}")
        if not names:
            raise ValueError(f"name at least one probe: {', '.join(PROBES)}")
        return _unique(names, "probe")

    @model_validator(mode="after")
    def _something_to_do(self) -> StudySpec:
        if not self.features and not self.baselines:
            raise ValueError("nothing to study; give 'features', 'baselines' or both")
        cells = [(f.sae, pool, t) for f in self.features for pool in f.pool for t in f.binarize]
        for cell in cells:
            if cells.count(cell) > 1:
                raise ValueError(f"features: SAE '{cell[0]}' with pooling '{cell[1]}' is asked for twice; remove one")
        return self


def load_study(path: str | Path) -> StudySpec:
    """Read STUDY.yaml; relative paths in it are taken from the directory of that file.

    Raises:
        StudyError: One sentence naming the file, the key and what is wrong.
    """
    return study_from_mapping(load_mapping(path, StudyError), base_dir=Path(path).parent, where=str(path))


def study_from_mapping(mapping: Mapping[str, Any], base_dir: str | Path, where: str = "study") -> StudySpec:
    """Validate plain data as a study; relative paths are taken from `base_dir`.

    Raises:
        StudyError: One sentence naming `where`, the key and what is wrong.
    """
    spec = parse_spec(mapping, StudySpec, StudyError, where)
    base = Path(base_dir)
    return spec.model_copy(
        update={
            "store": _from(base, spec.store),
            "out": _from(base, spec.out),
            "label": _table_from(base, spec.label),
            "text": _table_from(base, spec.text),
        }
    )


def _from(base: Path, path: str) -> str:
    return path if "://" in path else str(base / path)


def _table_from(base: Path, column: Any) -> Any:
    return column.model_copy(update={"path": _from(base, column.path)}) if isinstance(column, TableColumn) else column


def _unique(values: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{what} '{value}' is given twice; remove one")
    return values
