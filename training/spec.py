"""Read STUDY.yaml into frozen, validated models: which labels, which features, which baselines, how to split.

Everything that decides a number of the study stands here; how many processes compute it does not. Unknown keys and
impossible values are refused in one sentence. Whether a store has what is asked for is found out when the study runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.poolings import NAMED, READABLE, is_readable
from featurestore.errors import StudyError
from featurestore.finding.dialect import CsvSpec
from featurestore.finding.patterns import joined
from featurestore.specs.spec_file import load_mapping, parse_spec
from featurestore.specs.spec_sentences import shown
from featurestore.specs.spec_values import Flag, OneOrMore, PathText, Value

BASELINES = ("tfidf", "char_ngrams", "hidden_mean", "hidden_last", "pixels", "majority")
PROBES = ("logistic_l2", "logistic_l1", "tree", "k_sparse", "linear_svm", "softmax")
AIMS = ("precision", "recall", "false_positive_rate", "cost")  # of an operating point
LENGTH = "length"  # in `by`: the length of documents, and no column
MOST_FEATURES = (1 << 32) - 1  # of an SAE in a store, whose indices have 32 bits
PRIVATE = "private"  # as `text`: the corpus' own column, and nobody is shown it


def _as_list(value: Any) -> Any:
    """Let `pool: max` stand for `pool: [max]`."""
    return value if isinstance(value, list | tuple) else [value]


def _one_of(names: Sequence[str]) -> Any:
    """What editors may complete; a sentence of our own refuses other names."""
    return Field(json_schema_extra={"enum": list(names)})


_Threshold = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # SAE activations are >= 0, so is a threshold on them


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TableColumn(_Model):
    """A column of a table outside the store, joined by document id.

    Attributes:
        path: A table in whatever a corpus can be: Parquet, JSONL, CSV or TSV, compressed, several by a pattern, a URL.
        id: Its column that holds the store's `doc_id`.
        column: Its column with the values.
        csv: How it is written where it is CSV and does not say it itself.
    """

    path: PathText
    id: str = Field(min_length=1)
    column: str = Field(min_length=1)
    csv: CsvSpec | None = None


class TextColumn(TableColumn):
    """The texts, in a table outside the store.

    Attributes:
        private: Whether what the study writes for people is to hold no text.
    """

    private: Flag = False


class SelectSpec(_Model):
    """Keep the k best features, chosen on the rows that a probe is fitted on.

    Attributes:
        by: class_means (largest difference between the mean of a class and of all others), anova (F statistic), l1
            (largest weights of an L1 logistic regression) or random (a control).
        k: How many.
    """

    by: Literal["class_means", "anova", "l1", "random"] = "class_means"
    k: int = Field(ge=1, le=MOST_FEATURES)


class FeatureSpec(_Model):
    """SAEs and the document vectors to make of them: each pooling x threshold x scale x selection is one method.

    Attributes:
        sae: Name of the SAE in the store; a list of names puts their features side by side in one matrix.
        pool: Poolings: max, sum, mean (sum / n_tokens), count, last, top<N>.
        binarize: null keeps the pooled value; a threshold t makes it 1 where the value exceeds t, else 0; `learnt`
            takes for each feature the median of its non-zero values over the rows that a probe is fitted on.
        scale: max_abs divides a feature by its largest fitted value; sqrt takes square roots first.
        select: null keeps all features.
        min_documents: Features that fire in fewer fitted documents are dropped.
        control: Whether this is a control (an SAE with random weights) and so competes with the baselines.
        store: Another store with the same documents (another model, say); by default the study's.
        beside: Names of numbers among the baselines; beside each of these the features are tried too, which tells what
            they add to it.
    """

    sae: Annotated[tuple[str, ...], OneOrMore(_as_list)] = Field(min_length=1)
    pool: Annotated[tuple[str, ...], OneOrMore(_as_list)] = Field(default=("max",), min_length=1)
    binarize: Annotated[tuple[_Threshold | Literal["learnt"] | None, ...], OneOrMore(_as_list)] = Field(
        default=(None,), min_length=1
    )
    scale: Annotated[tuple[Literal["max_abs", "sqrt"], ...], OneOrMore(_as_list)] = Field(
        default=("max_abs",), min_length=1
    )
    select: Annotated[tuple[SelectSpec | None, ...], OneOrMore(_as_list)] = Field(default=(None,), min_length=1)
    min_documents: int = Field(default=1, ge=1)
    control: Flag = False
    store: PathText | None = None
    beside: Annotated[tuple[str, ...], OneOrMore(_as_list)] = ()

    @model_validator(mode="after")
    def _numbers_stay(self) -> FeatureSpec:
        if self.beside and ("learnt" in self.binarize or any(select is not None for select in self.select)):
            raise ValueError("'beside' goes with all features as they are; remove 'select' or the learnt threshold")
        return self

    @field_validator("pool")
    @classmethod
    def _known_pools(cls, pools: tuple[str, ...]) -> tuple[str, ...]:
        for pool in pools:
            if not is_readable(pool):
                raise ValueError(f"unknown pooling '{pool}'{did_you_mean(pool, NAMED) or ';'} use {READABLE}")
        return _unique(pools, "pooling")

    @field_validator("binarize")
    @classmethod
    def _unique_thresholds(cls, thresholds: tuple[Any, ...]) -> tuple[Any, ...]:
        return _unique(thresholds, "threshold")

    @field_validator("scale")
    @classmethod
    def _unique_scales(cls, scales: tuple[Any, ...]) -> tuple[Any, ...]:
        return _unique(scales, "scale")

    @field_validator("select")
    @classmethod
    def _unique_selections(cls, selections: tuple[Any, ...]) -> tuple[Any, ...]:
        return _unique(selections, "selection")

    @field_validator("sae")
    @classmethod
    def _unique_saes(cls, saes: tuple[str, ...]) -> tuple[str, ...]:
        if not all(saes):
            raise ValueError("a name is empty; name an SAE of the store")
        return _unique(saes, "SAE")

    @field_validator("beside")
    @classmethod
    def _unique_numbers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _unique(names, "name of numbers")


class HiddenBaseline(_Model):
    """Hidden states of another store of the same documents: those of the model that is predicted, say.

    Attributes:
        hidden: mean, last or both.
        store: The other store.
    """

    hidden: Annotated[tuple[Literal["mean", "last"], ...], OneOrMore(_as_list)] = Field(min_length=1)
    store: PathText

    @field_validator("hidden")
    @classmethod
    def _unique_kinds(cls, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
        return _unique(kinds, "kind of hidden states")


class NumbersBaseline(_Model):
    """A few numbers about each document, which say as much as they say: a length, a model's own margin.

    Attributes:
        columns: The columns that hold them, one vector together.
        path: The table that they are in; kept columns of the study's store where not given.
        id: Its column that holds the store's `doc_id`.
        csv: How it is written where it is CSV and does not say it itself.
        name: What to call them; by default the columns' names.
    """

    columns: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], OneOrMore(_as_list)] = Field(min_length=1)
    path: PathText | None = None
    id: str | None = Field(default=None, min_length=1)
    csv: CsvSpec | None = None
    name: str = ""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and not data.get("name") and data.get("columns"):
            columns = _as_list(data["columns"])
            return {**data, "name": "+".join(map(str, columns))}
        return data

    @field_validator("columns")
    @classmethod
    def _unique_columns(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        return _unique(columns, "column")

    @field_validator("name")
    @classmethod
    def _is_a_word(cls, name: str) -> str:
        if name in BASELINES or not re.fullmatch(r"[\w+.-]+", name):
            raise ValueError(f"'{name}' cannot name numbers; use letters, digits, '_' and '-', and no baseline's name")
        return name

    @model_validator(mode="after")
    def _table_has_ids(self) -> NumbersBaseline:
        if (self.path is None) != (self.id is None):
            raise ValueError("a table needs both 'path' and 'id'; a kept column of the store has neither")
        return self


def _kind_of_baseline(value: Any) -> str:
    """What a baseline is, by the keys that it has; no kind is called as a key is, for messages name keys."""
    if isinstance(value, str):
        return "a name"
    given = set(value) if isinstance(value, Mapping) else set(getattr(value, "model_fields_set", ()))
    return "hidden states" if "hidden" in given else "numbers" if "columns" in given else "features of a store"


Baseline = Annotated[
    Annotated[str, _one_of(BASELINES), Tag("a name")]
    | Annotated[HiddenBaseline, Tag("hidden states")]
    | Annotated[NumbersBaseline, Tag("numbers")]
    | Annotated[FeatureSpec, Tag("features of a store")],
    Discriminator(_kind_of_baseline),
]


class GivenSplit(_Model):
    """A column of the store that says which documents are held out.

    Attributes:
        name: The column.
        test: Its values that mean "held out".
    """

    name: str = Field(min_length=1)
    test: Annotated[tuple[Value, ...], OneOrMore(_as_list)] = Field(default=("test",), min_length=1)


class SplitSpec(_Model):
    """How documents are divided, once for each seed and for all methods alike.

    Attributes:
        test: Share of the documents held out (with `group` it is approximate, for groups stay whole).
        folds: Inner folds of the remaining documents, which choose everything that is chosen.
        seeds: How many splits are drawn; their seeds are 0, 1, ...
        group: A kept column whose equal values stay on one side of every split, or null.
        column: A given split: documents whose column holds one of the `test` values are held out in every seed.
        outer: Cross-validate: so many outer folds in each seed, each held out once, instead of one share `test`.
        duplicates: `together` keeps near-duplicate texts on one side (where the text is known); `ignore` does not.
        exclude_classes: Classes whose documents take no part.
        min_per_class: Classes with fewer documents take no part; a group or cluster of near-duplicates counts as one,
            for it is drawn as one.
    """

    test: float = Field(default=0.2, gt=0.0, le=0.5)
    folds: int = Field(default=5, ge=2, le=50)
    seeds: int = Field(default=5, ge=1, le=100)
    group: str | None = None
    column: GivenSplit | None = None
    outer: int | None = Field(default=None, ge=2, le=50)
    duplicates: Literal["together", "ignore"] = "together"
    exclude_classes: Annotated[tuple[Value, ...], OneOrMore(_as_list)] = ()
    min_per_class: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_way(self) -> SplitSpec:
        if self.column is not None and self.outer is not None:
            raise ValueError("'column' gives the test set and 'outer' draws it; remove one")
        return self


class TransferSpec(_Model):
    """Train on one value of a column, test on each: languages, sources, years.

    Attributes:
        by: The column, of 300 values at most.
        train: Its values to train on; null means each value in turn. The test documents of every value are those of
            the study's split, so that all directions meet the same ones.
    """

    by: str = Field(min_length=1)
    train: Annotated[tuple[Value, ...], OneOrMore(_as_list), Field(min_length=1)] | None = None

    @field_validator("train")
    @classmethod
    def _unique_values(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return values if values is None else _unique(values, "value")


class RegimeSpec(_Model):
    """Harder conditions, each run beside the study itself on the same test documents.

    Attributes:
        train_sizes: Training documents, drawn with the classes' shares.
        label_noise: Shares of training labels replaced by another class.
        minority_share: Shares of the training documents that the rarest class is thinned to.
    """

    train_sizes: tuple[Annotated[int, Field(ge=4)], ...] = ()
    label_noise: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    minority_share: tuple[Annotated[float, Field(gt=0, lt=0.5)], ...] = ()

    @field_validator("train_sizes")
    @classmethod
    def _unique_sizes(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return _unique(sizes, "size")

    @field_validator("label_noise", "minority_share")
    @classmethod
    def _unique_shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        return _unique(shares, "share")


class CostSpec(_Model):
    """What one error of either kind costs, in any unit.

    Attributes:
        false_positive: A document claimed for the class that is not of it.
        false_negative: A document of the class that is not claimed.
    """

    false_positive: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    false_negative: float = Field(default=1.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _something_costs(self) -> CostSpec:
        if not self.false_positive + self.false_negative:
            raise ValueError("neither error costs anything; give one of them a cost above 0")
        return self


class OperatingPointSpec(_Model):
    """What the threshold of a class is for (`training.scores.operating_points`); exactly one aim.

    Attributes:
        name: The class, `class` in the file.
        precision: At least this share of the documents claimed for the class is of it; as many as possible are claimed.
        recall: At least this share of the documents of the class is claimed, as few others as possible.
        false_positive_rate: At most this share of the other documents is claimed.
        cost: Errors cost least.
        undecided: Share of the documents that a second threshold hands on to people.
    """

    name: Value = Field(alias="class")
    precision: float | None = Field(default=None, gt=0, le=1)
    recall: float | None = Field(default=None, gt=0, le=1)
    false_positive_rate: float | None = Field(default=None, ge=0, lt=1)
    cost: CostSpec | None = None
    undecided: float = Field(default=0.0, ge=0, le=0.5)

    @model_validator(mode="after")
    def _one_aim(self) -> OperatingPointSpec:
        given = [aim for aim in AIMS if getattr(self, aim) is not None]
        if len(given) != 1:
            what = f"{' and '.join(given)} are given" if given else "it has no aim"
            raise ValueError(f"{what}; give exactly one of {', '.join(AIMS)}")
        return self

    @property
    def aim(self) -> str:
        """Which of AIMS is given."""
        return next(aim for aim in AIMS if getattr(self, aim) is not None)


class LengthSlices(_Model):
    """Ranges of length, in counted tokens, as slices.

    Attributes:
        length: How many ranges, with about as many documents each, or where they begin and end: [32, 128] makes three.
    """

    length: Annotated[int, Field(ge=2, le=20)] | tuple[Annotated[int, Field(ge=1)], ...] = 4

    @field_validator("length")
    @classmethod
    def _rising(cls, length: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if isinstance(length, tuple) and (not length or any(a >= b for a, b in pairwise(length))):
            raise ValueError("the ends of ranges must rise and there must be one; write [32, 128], say")
        return length


class StudySpec(_Model):
    """A study: one store, one question, many methods on the same splits.

    Attributes:
        store: URI of a complete feature store.
        label: The class of each document: a kept column of the store, or a column of another table.
        text: Where TF-IDF reads the text; by default the corpus' text column, if the store keeps it. `private` reads
            it too, and keeps texts, ids and names of files out of report, explanation, model files and evidence.
        features: SAE features, and the document vectors to make of them.
        baselines: Any of tfidf (words), char_ngrams, hidden_mean, hidden_last, pixels (of images), majority (which is
            always added); hidden states and features of another store; numbers about documents.
        probes: The classifiers, each put on every matrix (see `training.probes.catalogue`).
        split: How documents are divided.
        regimes: Harder conditions, beside the study itself.
        transfer: Training on one value of a column and testing on each.
        screen: For stores beyond memory: keep so many features, chosen while they stream by
            (`training.methods.streamed_selection`).
        bootstrap: Resamples behind each interval.
        class_weight: balanced lets every class count alike in training, however many documents it has; null counts
            documents.
        by: Columns, or `length`, by whose values all scores are also given: each value is a slice, of 300 at most.
        operating_point: A threshold for an aim, with its interval; null predicts the likeliest class.
        calibrate: Whether model files give calibrated probabilities, where calibration helps.
        refit: Whether the models in the files are fitted on all labelled documents after the evaluation; false keeps
            those that were evaluated.
        out: Directory for the results; of a study that is read from a file, by default one of its name, `default_out`.
    """

    store: PathText
    label: str | TableColumn
    text: str | TextColumn | None = None
    features: tuple[FeatureSpec, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    probes: Annotated[tuple[Annotated[str, _one_of(PROBES)], ...], OneOrMore(_as_list)] = ("logistic_l2",)
    split: SplitSpec = SplitSpec()
    regimes: RegimeSpec = RegimeSpec()
    transfer: TransferSpec | None = None
    screen: int | None = Field(default=None, ge=1, le=MOST_FEATURES)
    bootstrap: int = Field(default=1000, ge=100, le=100_000)
    class_weight: Literal["balanced"] | None = None
    by: Annotated[tuple[Annotated[str, Field(min_length=1)] | LengthSlices, ...], OneOrMore(_as_list)] = ()
    operating_point: OperatingPointSpec | None = None
    calibrate: Flag = True
    refit: Flag = True
    out: PathText = "study"

    @property
    def private(self) -> bool:
        """Whether texts, ids and names of files stay out of what is written for people."""
        return self.text.private if isinstance(self.text, TextColumn) else self.text == PRIVATE

    @property
    def named_baselines(self) -> tuple[str, ...]:
        """Baselines that need no more than their name."""
        return tuple(one for one in self.baselines if isinstance(one, str))

    @property
    def numbers(self) -> tuple[NumbersBaseline, ...]:
        """Baselines that are numbers about documents."""
        return tuple(one for one in self.baselines if isinstance(one, NumbersBaseline))

    @property
    def other_stores(self) -> tuple[str, ...]:
        """Stores that features or baselines name, each once."""
        named = [one.store for one in (*self.features, *self.baselines) if not isinstance(one, str | NumbersBaseline)]
        return tuple(dict.fromkeys(uri for uri in named if uri is not None))

    @property
    def text_source(self) -> str | TextColumn | None:
        """Where the texts are, None for the corpus' own column."""
        return None if self.text == PRIVATE else self.text

    @field_validator("baselines")
    @classmethod
    def _known_baselines(cls, baselines: tuple[Any, ...]) -> tuple[Any, ...]:
        for one in baselines:
            if isinstance(one, str) and one not in BASELINES:
                hint = did_you_mean(one, BASELINES) or ";"
                raise ValueError(f"unknown baseline '{one}'{hint} use {', '.join(BASELINES)}")
            if isinstance(one, FeatureSpec) and (one.store is None or one.control or one.beside):
                raise ValueError(
                    f"SAE '{'+'.join(one.sae)}' is a baseline where its features are another store's; name that with "
                    "'store', or put it under 'features' (with 'control: true' where its weights are random)"
                )
        _unique(tuple(one.name for one in baselines if isinstance(one, NumbersBaseline)), "numbers")
        return _unique(baselines, "baseline")

    @field_validator("probes")
    @classmethod
    def _known_probes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in PROBES:
                hint = did_you_mean(name, PROBES) or ";"
                raise ValueError(f"probe '{name}' is not available{hint} use {', '.join(PROBES)}")
        if not names:
            raise ValueError(f"name at least one probe: {', '.join(PROBES)}")
        return _unique(names, "probe")

    @field_validator("by")
    @classmethod
    def _unique_slices(cls, by: tuple[str | LengthSlices, ...]) -> tuple[str | LengthSlices, ...]:
        _unique(tuple(one if isinstance(one, str) else LENGTH for one in by), "slice")
        return by

    @model_validator(mode="after")
    def _something_to_do(self) -> StudySpec:
        if not self.features and not self.baselines:
            raise ValueError("nothing to study; give 'features', 'baselines' or both")
        if self.screen is not None and any("learnt" in f.binarize for f in self.features):
            raise ValueError("'screen' streams features by and cannot learn thresholds; remove 'learnt' or 'screen'")
        for f in self.features:
            for select in f.select:
                if self.screen is not None and select is not None and select.k > self.screen:
                    raise ValueError(
                        f"select keeps {select.k:,} features, but 'screen' lets {self.screen:,} pass; "
                        "lower 'k' or raise 'screen'"
                    )
        numbers = [one.name for one in self.numbers]
        for f in self.features:
            if unknown := next((name for name in f.beside if name not in numbers), None):
                there = ", ".join(numbers) or "none"
                raise ValueError(f"beside: there are no numbers '{unknown}' among the baselines (there are: {there})")
            if f.beside and self.screen is not None:
                raise ValueError("'screen' streams features by and leaves no room for 'beside'; remove one")
        asked = [
            (f.store, f.sae, pool, t, scale, select, f.min_documents)
            for f in self.features
            for pool in f.pool
            for t in f.binarize
            for scale in f.scale
            for select in f.select
        ]
        for one in asked:
            if asked.count(one) > 1:
                sae = "+".join(one[1])
                raise ValueError(f"features: SAE '{sae}' with pooling '{one[2]}' is asked for twice; remove one")
        return self


def load_study(path: str | Path) -> StudySpec:
    """Read STUDY.yaml; relative paths in it are taken from the directory of that file.

    Raises:
        StudyError: One sentence naming the file, the key and what is wrong.
    """
    mapping = {"out": default_out(path), **load_mapping(path, StudyError)}
    return study_from_mapping(mapping, base_dir=Path(path).parent, where=str(path))


def default_out(path: str | Path) -> str:
    """Where results go by default: `toxicity-study` for `toxicity.yaml`, `study` for `study.yaml`."""
    path = Path(path)
    return path.stem if path.suffix and path.stem.endswith("study") else f"{path.stem}-study"


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
            "features": tuple(_baseline_from(base, f) for f in spec.features),
            "baselines": tuple(_baseline_from(base, one) for one in spec.baselines),
            "label": _table_from(base, spec.label),
            "text": _table_from(base, spec.text),
        }
    )


def _from(base: Path, path: str) -> str:
    return path if "://" in path else str(base / Path(path).expanduser())


def _baseline_from(base: Path, one: Any) -> Any:
    """Features or a baseline, with the paths in it taken from a directory."""
    if isinstance(one, NumbersBaseline):
        return one if one.path is None else one.model_copy(update={"path": joined(one.path, base)})
    if isinstance(one, str) or one.store is None:
        return one
    return one.model_copy(update={"store": _from(base, one.store)})


def _table_from(base: Path, column: Any) -> Any:
    if not isinstance(column, TableColumn):
        return column
    return column.model_copy(update={"path": joined(column.path, base)})  # a pattern only where the user wrote one


def _unique(values: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    for value in values:
        if values.count(value) > 1:
            said = shown(value.model_dump()) if isinstance(value, BaseModel) else f"'{value}'"
            raise ValueError(f"{what} {said} is given twice; remove one")
    return values
