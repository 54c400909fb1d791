"""Guess which column of a table holds texts, images or conversations, ids, labels, groups and a split, and say why.

A guess is made from the names of columns and from what stands in them: the first rows, evenly shared among the files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from featurestore.tables.same_value import is_missing, value_text

ROWS = 2_000
"""Rows that are looked at."""

_TEXTS = (
    "text",
    "content",
    "body",
    "comment",
    "sentence",
    "prompt",
    "message",
    "document",
    "review",
    "tweet",
    "question",
)
_IDS = ("id", "doc_id", "docid", "uid", "uuid", "key", "row_id", "index")
_LABELS = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "y",
    "sentiment",
    "topic",
    "gold",
    "hateful",
    "toxic",
    "spam",
)
_GROUPS = ("group", "author", "user", "user_id", "thread", "conversation_id", "source", "template", "family", "site")
_LANGUAGES = ("lang", "language", "locale")
_SPLITS = ("split", "fold", "subset", "partition", "set")
_HELD_OUT = ("test", "heldout", "held_out", "eval")
_TRAINED_ON = ("train", "training", "dev", "val", "valid", "validation")
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
_IMAGE_NAME = re.compile(r".*\.(png|jpe?g|gif|webp|bmp|tiff?)", re.IGNORECASE)
MOST_CLASSES = 50
LEAST_OF_A_CLASS = 2
SHORT = 40
"""Characters of a value, on average, that names something and is no text."""
_LANGUAGE_CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z]{2,4})?")


Documents = Literal["text", "image", "messages"]


@dataclass(frozen=True)
class Guess:
    """A column and why it was taken."""

    column: str
    why: str


@dataclass(frozen=True)
class Roles:
    """What the columns of a table seem to be; None where nothing looks like it.

    Attributes:
        text: The documents.
        reads: What these are: texts, images or conversations.
        id: Ids, unique among the rows seen.
        label: Classes.
        group: What documents share, so that they must not be divided by a split.
        language: Codes of languages.
        split: A given split; `held_out` are its values that mean so.
        kept: Of the remaining columns those with short values that several rows share: a study may ask for them later,
            and what is not in a store can only be had by extracting anew.
        others: The columns that remain then.
        classes: Class -> rows seen of it.
        rows: Rows seen.
    """

    text: Guess | None
    id: Guess | None
    label: Guess | None
    group: Guess | None
    language: Guess | None
    split: Guess | None
    held_out: tuple[str, ...]
    kept: tuple[str, ...]
    others: tuple[str, ...]
    classes: Mapping[str, int]
    rows: int
    reads: Documents = "text"


def guess_roles(columns: Mapping[str, Sequence[Any]]) -> Roles:
    """Guess from some rows of a table.

    Args:
        columns: Name -> values, all of one length.
    """
    rows = len(next(iter(columns.values()), ()))
    seen = {name: _Column(name, values) for name, values in columns.items()}
    free = dict(seen)

    def take(choose: Callable[[Sequence[_Column]], Guess | None]) -> Guess | None:
        found = choose(list(free.values()))
        if found is not None:
            del free[found.column]
        return found

    reads: Documents = "text"
    if (text := take(_messages)) is not None:
        reads = "messages"
    elif (text := take(_text)) is None and (text := take(_image)) is not None:
        reads = "image"
    id = take(_id)
    language = take(_language)
    split = take(_split)
    label = take(_label)
    group = take(lambda left: _group(left, seen[label.column] if label else None))
    held_out = tuple(value for value in seen[split.column].counts if value.lower() in _HELD_OUT) if split else ()
    classes = dict(seen[label.column].counts.most_common()) if label else {}
    kept = tuple(name for name, column in free.items() if column.is_category)
    others = tuple(name for name in free if name not in kept)
    return Roles(text, id, label, group, language, split, held_out, kept, others, classes, rows, reads)


class _Column:
    """A column as the guesses look at it."""

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self.name = name
        self.word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        there = [value for value in values if not is_missing(value)]
        self.is_image = bool(there) and all(map(_is_image, there))
        self.is_messages = bool(there) and all(map(_is_conversation, there))
        self.rows, self.filled = len(values), len(there)
        self.is_text = bool(there) and all(isinstance(value, str) for value in there)
        self.is_measured = any(isinstance(value, float) and not value.is_integer() for value in there if value == value)
        try:
            texts = [value if isinstance(value, str) else value_text(value) or "" for value in there]
        except TypeError:  # lists and objects are nothing that a job or study reads
            texts = []
        self.counts = Counter(texts)
        self.characters = sum(map(len, texts)) / max(len(texts), 1)
        self.words = sum(len(text.split()) for text in texts) / max(len(texts), 1)

    @property
    def is_unique(self) -> bool:
        return self.filled == self.rows > 0 and len(self.counts) == self.rows

    @property
    def is_category(self) -> bool:
        shared = 1 <= len(self.counts) < 0.9 * self.filled
        return shared and not self.is_measured and self.characters <= SHORT

    def named(self, names: Sequence[str]) -> bool:
        return self.word in names or any(self.word.endswith(f"_{name}") for name in names)


def _is_image(value: Any) -> bool:
    """Encoded bytes, the path of an image, or the struct of both that `datasets` writes."""
    if isinstance(value, Mapping):
        return bool(value) and value.keys() <= {"bytes", "path"} and any(map(_is_image, value.values()))
    if isinstance(value, bytes):
        return value.startswith(_IMAGES)
    return isinstance(value, str) and _IMAGE_NAME.fullmatch(value) is not None


def _is_conversation(value: Any) -> bool:
    """A list of turns."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, Mapping) and turn.keys() >= {"role", "content"} for turn in value)
    )


def _messages(columns: Sequence[_Column]) -> Guess | None:
    found = next((column.name for column in columns if column.is_messages), None)
    return None if found is None else Guess(found, "lists of turns with a role and a content")


def _image(columns: Sequence[_Column]) -> Guess | None:
    found = next((column for column in columns if column.is_image), None)
    return None if found is None else Guess(found.name, "paths of images" if found.is_text else "encoded images")


def _text(columns: Sequence[_Column]) -> Guess | None:
    texts = [column for column in columns if column.is_text and not column.is_image]
    wordy = [column for column in texts if column.words >= 2]
    named = [column for column in wordy or texts if column.named(_TEXTS)]
    best = max(named or wordy, key=lambda column: column.characters, default=None)
    if best is None:
        return None
    by = "by its name and" if named else "the longest texts:"
    return Guess(best.name, f"{by} {best.words:.0f} words on average")


def _id(columns: Sequence[_Column]) -> Guess | None:
    unique = [column for column in columns if column.is_unique and not column.is_measured and column.words <= 1.5]
    named = [column for column in unique if column.named(_IDS)]
    if named:
        return Guess(named[0].name, "by its name, and no two rows share a value")
    return None


def _language(columns: Sequence[_Column]) -> Guess | None:
    for column in columns:
        codes = all(map(_LANGUAGE_CODE.fullmatch, column.counts))
        if column.named(_LANGUAGES) and column.counts and (codes or all(map(str.isalpha, column.counts))):
            return Guess(column.name, f"by its name and values: {_listed(column.counts)}")
    return None


def _split(columns: Sequence[_Column]) -> Guess | None:
    for column in columns:
        values = {value.lower() for value in column.counts}
        if values & set(_HELD_OUT) and values - set(_HELD_OUT) and values <= {*_HELD_OUT, *_TRAINED_ON}:
            return Guess(column.name, f"its values are {_listed(column.counts)}")
    return None


def _label(columns: Sequence[_Column]) -> Guess | None:
    able = [
        column
        for column in columns
        if 2 <= len(column.counts) <= MOST_CLASSES
        and not column.is_measured
        and min(column.counts.values()) >= LEAST_OF_A_CLASS
        and not column.named(_GROUPS)
    ]
    named = [column for column in able if column.named(_LABELS)]
    best = min(named or able, key=lambda column: len(column.counts), default=None)
    if best is None:
        return None
    by = "by its name and" if named else "the fewest values:"
    return Guess(best.name, f"{by} {in_words(best.counts)}")


def _group(columns: Sequence[_Column], label: _Column | None) -> Guess | None:
    for column in columns:
        shared = len(column.counts) < 0.9 * column.filled
        if column.named(_GROUPS) and shared and len(column.counts) > max(len(label.counts) if label else 1, 2):
            each = column.filled / len(column.counts)
            return Guess(column.name, f"by its name, and {each:.1f} rows share a value on average")
    return None


def in_words(classes: Mapping[str, int]) -> str:
    """Class -> rows, in words: how many classes there are, and the largest of them."""
    return f"{len(classes)} classes, {_listed(Counter(classes))}"


def _listed(counts: Counter[str]) -> str:
    most = [
        f"{value!r} ({n:,})" if len(value) <= 24 else f"'{value[:21]}...' ({n:,})" for value, n in counts.most_common(4)
    ]
    return ", ".join(most) + (", ..." if len(counts) > 4 else "")
