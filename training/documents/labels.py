"""Which documents take part in a study, with their classes, groups and texts.

Documents are put into an order of their own, by the hash of their id, so that nothing after this module can depend on
the order of the store. Whatever cannot take part (a failed document, no label, no group, no counted token) is left out
for every method alike, counted, and said. Features are read elsewhere, by the positions kept here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.base.did_you_mean import did_you_mean
from featurestore.errors import StudyError
from featurestore.reading.metadata import exact_columns
from featurestore.storage.files import shown
from featurestore.tables.same_value import class_texts, in_order, match_ids, value_text
from training.documents.joined import joined_column
from training.documents.named_values import meant
from training.documents.numbers import numbers_of
from training.documents.slices import Slices, make_slices, sliced_columns
from training.spec import SplitSpec, StudySpec, TableColumn

if TYPE_CHECKING:
    import polars as pl

    from featurestore.reader import FeatureStore

# Why documents are left out, in the order in which the reasons are tried.
REASONS = {
    "error": "extraction failed for them",
    "no_label": "they have no label",
    "no_group": "they have no group",
    "no_tokens": "they have no counted token (empty text)",
    "no_text": "they have no text for TF-IDF",
    "no_number": "they have none of the numbers that a baseline is made of, or one beyond 3.4e38",
    "no_column": "they have no value in the column that splits them",
    "elsewhere": "another store of the study does not have them",
    "excluded_class": "split.exclude_classes leaves their class out",
    "rare_class": "their class is below split.min_per_class",
}


@dataclass(frozen=True)
class StudyData:
    """The documents of a study, in the order of the hash of their ids (N documents).

    Attributes:
        position: int64 [N], row of each document in the store.
        doc_id: str object [N].
        y: int64 [N], index into `classes`.
        classes: Class names, in numeric order where all are whole numbers, else in alphabetical order.
        group: int64 [N], or None when the study has no group column.
        text: One text for each document, or None when there is none to read.
        rows: Documents in the store.
        left_out: Reason (a key of REASONS) -> number of documents left out for it.
        truncated: How many of the N documents were cut at `max_tokens`.
        text_cluster: int64 [N], cluster of near-duplicate texts; None when the texts are unknown or not looked at.
        columns: Name -> str object [N], for the columns that a given split or transfer goes by.
        notes: What a reader must know of the tables outside the store, in sentences.
        slices: Name in the study's `by` -> its slices.
        numbers: Name of numbers among the baselines -> float64 [N, columns].
        strata: int64 [N], finer than classes: what a split leaves some of to train on; None where a class is enough.
    """

    position: np.ndarray
    doc_id: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    group: np.ndarray | None
    text: tuple[str, ...] | None
    rows: int
    left_out: Mapping[str, int]
    truncated: int
    text_cluster: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    slices: Mapping[str, Slices] = field(default_factory=dict)
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    strata: np.ndarray | None = None

    @cached_property
    def unit(self) -> np.ndarray | None:
        """int64 [N], what stays on one side and is resampled whole: groups and near-duplicates joined; None if single.

        A chain of shared groups and shared clusters is one unit.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if self.text_cluster is None or int(self.text_cluster.max()) + 1 == len(self.y):
            return self.group
        if self.group is None:
            return self.text_cluster
        n_groups = int(self.group.max()) + 1
        size = n_groups + int(self.text_cluster.max()) + 1
        edges = coo_array((np.ones(len(self.y)), (self.group, n_groups + self.text_cluster)), shape=(size, size))
        _, component = connected_components(edges, directed=False)
        return np.unique(component[self.group], return_inverse=True)[1].astype(np.int64)

    def count_units_of(self, rows: np.ndarray) -> int:
        """How many independent documents some are (int64, each once): those of one unit count as one."""
        return len(rows) if self.unit is None else len(np.unique(self.unit[rows]))


def load_documents(store: FeatureStore, spec: StudySpec, others: Sequence[FeatureStore] = ()) -> StudyData:
    """Join labels, groups and texts to the documents of a store and leave out what cannot take part.

    Args:
        store: The study's store.
        spec: The study.
        others: Further stores whose features it uses; a document has to be in all of them.

    Raises:
        StudyError: A column or table is missing or unreadable, an id stands twice, no document or only one class is
            left, or TF-IDF is asked for and there is no text.
    """
    text_source = _text_source(store, spec)
    by = [*([spec.split.column.name] if spec.split.column else []), *([spec.transfer.by] if spec.transfer else [])]
    frame = _read(store, spec, [text_source, *by])
    ids = frame["doc_id"].to_list()
    notes: list[str] = []
    labels = _labels(spec.label, frame, notes)
    groups = frame[spec.split.group] if spec.split.group is not None else None
    texts = _texts(text_source, frame, notes) if text_source is not None else None
    numbers = {one.name: numbers_of(one, frame, notes) for one in spec.numbers}
    none = np.zeros(len(ids), bool)
    missing = {
        "error": frame["error"].is_not_null().to_numpy(),
        "no_label": labels.is_null().to_numpy(),
        "no_group": _is_missing(groups) if groups is not None else none,
        "no_tokens": (frame["n_tokens"] == 0).to_numpy(),
        "no_text": texts.is_null().to_numpy() if texts is not None and needing_text(spec) else none,
    }
    if numbers:
        missing["no_number"] = np.any([~np.isfinite(values).all(axis=1) for values in numbers.values()], axis=0)
    if by:
        missing["no_column"] = np.any([_is_missing(frame[name]) for name in by], axis=0)
    if others:
        missing["elsewhere"] = _absent(frame["doc_id"], others)
    position, left_out = _taking_part(ids, missing, store)

    classes, y = _codes(labels.gather(position))
    text = None if texts is None else tuple(texts.gather(position).fill_null("").to_list())
    data = StudyData(
        position=position,
        doc_id=np.array([ids[i] for i in position], dtype=object),
        y=y,
        classes=classes,
        group=None if groups is None else _group_codes(groups.gather(position)),
        text=text,
        rows=len(ids),
        left_out=left_out,
        truncated=0,
        text_cluster=_near_duplicates(text) if text is not None and spec.split.duplicates == "together" else None,
        columns={name: np.array(_value_texts(frame[name].gather(position)), dtype=object) for name in by},
        notes=tuple(notes),
        numbers={name: values[position] for name, values in numbers.items()},
    )
    data = _without_classes(data, spec.split)
    return replace(
        data,
        truncated=int(frame["truncated"].gather(data.position).sum() or 0),
        slices=make_slices(spec.by, frame, data.position),
    )


def needing_text(spec: StudySpec) -> list[str]:
    """The baselines of a study that are made of the text."""
    return [name for name in ("tfidf", "char_ngrams") if name in spec.named_baselines]


def _text_source(store: FeatureStore, spec: StudySpec) -> str | TableColumn | None:
    """Where the texts are: what the study names, or else the corpus' own; refused where a baseline needs some."""
    source = spec.text_source if spec.text_source is not None else _kept_text(store)
    needing = needing_text(spec)
    if source is not None or not needing:
        return source
    given = "give the study 'text: {path: ..., id: ..., column: ...}'"
    if _of_images(store):
        raise StudyError(
            f"baselines: {needing[0]} needs texts, and the documents of {shown(store.uri)} are images; use pixels, or "
            f"{given} if each has one"
        )
    raise StudyError(
        f"baselines: {needing[0]} needs the text, which {shown(store.uri)} does not keep; add the text column to "
        f"'keep' in the job, or {given}"
    )


def _read(store: FeatureStore, spec: StudySpec, more: Sequence[str | TableColumn | None]) -> dict[str, pl.Series]:
    """The columns of the store that a study goes by, and `more` that it keeps; every document stands in it once."""
    kept = [name for one in spec.numbers if one.path is None for name in one.columns]
    wanted = [spec.label, spec.split.group, *more, *sliced_columns(spec.by), *kept]
    names = [name for name in wanted if isinstance(name, str)]
    _require_columns(store, spec)
    base = ["doc_id", "n_tokens", "truncated", "error"]
    frame = exact_columns(store.documents(), [*base, *dict.fromkeys(n for n in names if n not in base)])
    if frame["doc_id"].n_unique() < len(frame["doc_id"]):
        twice = frame["doc_id"].filter(frame["doc_id"].is_duplicated()).sort()[0]
        raise StudyError(f"{shown(store.uri)}: document '{twice}' stands in it more than once; run verify on the store")
    return frame


def _taking_part(
    ids: list[str], missing: Mapping[str, np.ndarray], store: FeatureStore
) -> tuple[np.ndarray, dict[str, int]]:
    """Rows of the documents that lack nothing, in their own order, and how many each reason leaves out.

    Args:
        ids: Of all documents [rows].
        missing: Reason -> bool [rows], in the order in which a document is counted once.
        store: Theirs, for the message.
    """
    use, left_out = np.ones(len(ids), bool), {}
    for reason in missing:
        left_out[reason] = int((use & missing[reason]).sum())
        use &= ~missing[reason]
    if not use.any():
        raise StudyError(
            f"{shown(store.uri)}: no document can take part: {describe_left_out(left_out, len(ids))}; "
            "see to what leaves out the most"
        )
    rows = sorted(np.flatnonzero(use), key=lambda i: (_hash(ids[i]), ids[i]))
    return np.array(rows, dtype=np.int64), left_out


def token_counts(store: FeatureStore, data: StudyData) -> np.ndarray:
    """int64 [N], counted tokens of each document of a study, from its own store."""
    return exact_columns(store.documents(), ["n_tokens"])["n_tokens"].to_numpy()[data.position].astype(np.int64)


def _near_duplicates(text: Sequence[str]) -> np.ndarray:
    from training.documents.near_duplicates import near_duplicates  # numba takes half a second to import

    return near_duplicates(text)


def describe_left_out(left_out: Mapping[str, int], rows: int) -> str:
    """Say in words how many of `rows` documents were left out and why; empty when none were."""
    parts = [f"{count:,} because {REASONS[reason]}" for reason, count in left_out.items() if count]
    return f"left out of {rows:,} documents: {'; '.join(parts)}" if parts else ""


def count_units(code: np.ndarray, unit: np.ndarray | None, n_codes: int) -> np.ndarray:
    """int64 [n_codes], in how many units each code (of a class, say) occurs; documents, where no unit holds several.

    Args:
        code: int64 [n], below n_codes.
        unit: int64 [n], or None.
        n_codes: How many codes there are.
    """
    if unit is not None:
        code = np.unique(unit * n_codes + code) % n_codes
    return np.bincount(code, minlength=n_codes)


def _without_classes(data: StudyData, spec: SplitSpec) -> StudyData:
    """The documents of classes that are neither excluded by name nor too rare."""
    if spec.exclude_classes:
        excluded = meant(data.classes, spec.exclude_classes, "split.exclude_classes")
        unknown = next((name for name, one in zip(spec.exclude_classes, excluded, strict=True) if one is None), None)
        if unknown is not None:
            there = ", ".join(data.classes[:10]) + (", ..." if len(data.classes) > 10 else "")
            hint = did_you_mean(unknown, data.classes)
            raise StudyError(f"split.exclude_classes: there is no class '{unknown}'; there are: {there}{hint}")
        data = _with_classes(data, ~np.isin(np.array(data.classes), np.array(excluded)), "excluded_class")
    if spec.min_per_class is not None:
        units = count_units(data.y, data.unit, len(data.classes))
        data = _with_classes(data, units >= spec.min_per_class, "rare_class")
    return data


def _with_classes(data: StudyData, stays: np.ndarray, reason: str) -> StudyData:
    """The documents of some classes (bool [C]); the others are counted under `reason`."""
    if stays.sum() < 2:
        named = f"only '{data.classes[int(np.argmax(stays))]}' is" if stays.any() else "none is"
        raise StudyError(
            f"split.{'exclude_classes' if reason == 'excluded_class' else 'min_per_class'}: of {len(data.classes)} "
            f"classes {named} left; a study needs at least two"
        )
    rows = np.flatnonzero(stays[data.y])

    def renumbered(code: np.ndarray | None) -> np.ndarray | None:
        return None if code is None else np.unique(code[rows], return_inverse=True)[1].astype(np.int64)

    return replace(
        data,
        position=data.position[rows],
        doc_id=data.doc_id[rows],
        y=(np.cumsum(stays) - 1)[data.y[rows]],
        classes=tuple(name for name, stay in zip(data.classes, stays, strict=True) if stay),
        group=renumbered(data.group),
        text_cluster=renumbered(data.text_cluster),
        text=None if data.text is None else tuple(data.text[i] for i in rows),
        columns={name: values[rows] for name, values in data.columns.items()},
        numbers={name: values[rows] for name, values in data.numbers.items()},
        left_out={**data.left_out, reason: len(data.y) - len(rows)},
    )


def _absent(ids: pl.Series, others: Sequence[FeatureStore]) -> np.ndarray:
    """Which documents are missing, failed or empty in another store."""
    import polars as pl

    absent = np.zeros(len(ids), bool)
    for other in others:
        good = pl.col("error").is_null() & (pl.col("n_tokens") > 0)
        there = other.documents().filter(good).select("doc_id").collect()["doc_id"]
        absent |= match_ids(there, ids).row < 0
    return absent


def _kept_text(store: FeatureStore) -> str | None:
    """The corpus' own text column, if the store keeps it; of images none, for their prompts are not the documents."""
    corpus = store.plan.spec.get("corpus")
    name = corpus.get("text") if isinstance(corpus, Mapping) and not _of_images(store) else None
    return name if any(name == kept for kept, _ in store.schema.keep) else None


def _of_images(store: FeatureStore) -> bool:
    corpus = store.plan.identity.get("corpus")
    return isinstance(corpus, Mapping) and bool(corpus.get("image"))


_FROM_A_TABLE = {  # key of a study -> how else its column can be given
    "label": " or give it as {path: ..., id: ..., column: ...}",
    "text": " or give it as {path: ..., id: ..., column: ...}",
    "baselines": ", or name the table that has it: {columns: [...], path: ..., id: ...}",
}


def columns_read(spec: StudySpec) -> list[tuple[str, str]]:
    """(key, column) of what a study reads in the columns that its store keeps."""
    named = [("label", spec.label), ("text", spec.text_source), ("split.group", spec.split.group)]
    named += [("split.column.name", spec.split.column.name)] if spec.split.column else []
    named += [("transfer.by", spec.transfer.by)] if spec.transfer else []
    named += [("baselines", name) for one in spec.numbers if one.path is None for name in one.columns]
    named += [("by", name) for name in sliced_columns(spec.by)]
    return [(key, name) for key, name in named if isinstance(name, str)]


def _require_columns(store: FeatureStore, spec: StudySpec) -> None:
    """Refuse a study that names a column which the store does not keep, by the key that names it."""
    kept = [name for name, _ in store.schema.keep]
    for key, name in columns_read(spec):
        if name not in kept:
            hint = did_you_mean(name, kept) or ";"
            raise StudyError(
                f"{key}: {shown(store.uri)} keeps no column '{name}'{hint} it keeps: {', '.join(kept) or 'none'}; "
                f"add it to 'keep' in the job{_FROM_A_TABLE.get(key, '')}"
            )


def _labels(source: str | TableColumn, frame: Mapping[str, pl.Series], notes: list[str]) -> pl.Series:
    """The class of each row of `frame`, null where it has none."""
    import polars as pl

    if isinstance(source, str):
        name, values, from_csv, where = source, frame[source].to_list(), False, "label"
    else:
        table, values = joined_column(source, frame["doc_id"], "label", notes)
        name, from_csv, where = source.column, table.from_csv, f"label: {table.name}"
    try:
        return pl.Series(class_texts(values, from_csv), dtype=pl.String)
    except ValueError as exc:
        raise StudyError(f"{where}: column '{name}' holds {exc}") from None


def _texts(source: str | TableColumn, frame: Mapping[str, pl.Series], notes: list[str]) -> pl.Series:
    """The text of each row of `frame`, null where it has none."""
    import polars as pl

    values = frame[source] if isinstance(source, str) else joined_column(source, frame["doc_id"], "text", notes)[1]
    try:
        return pl.Series(_value_texts(values), dtype=pl.String)
    except TypeError as exc:
        name = source if isinstance(source, str) else f"{source.path}: column '{source.column}'"
        raise StudyError(f"text: {name} holds {exc}, not text; name another column") from None


def _is_missing(values: pl.Series) -> np.ndarray:
    """Null, NaN or empty text: no group and no part."""
    return np.array([not text for text in _value_texts(values)], dtype=bool)


def _value_texts(values: Iterable[Any]) -> list[str | None]:
    return [value_text(value) for value in values]


def _codes(labels: pl.Series) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names, two at least, and the class index of each label."""
    classes = in_order(labels.to_list())
    if len(classes) < 2:
        raise StudyError(
            f"label: all {len(labels)} labelled documents are '{classes[0]}'; a study needs at least two classes"
        )
    index = {name: code for code, name in enumerate(classes)}
    return tuple(classes), np.array([index[name] for name in labels.to_list()], dtype=np.int64)


def _group_codes(values: pl.Series) -> np.ndarray:
    """Groups numbered by the hash of their name, so that neither row order nor alphabet decides anything."""
    names = [str(text) for text in _value_texts(values)]
    distinct = sorted(set(names), key=lambda name: (_hash(name), name))
    index = {name: code for code, name in enumerate(distinct)}
    return np.array([index[name] for name in names], dtype=np.int64)


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
