"""Names that others wrote: Neuronpedia's exports, and tables of one's own, as rows of a table of names.

An export has a JSON object a line with `modelId`, `layer` (which names the SAE), `index`, `description`,
`explanationModelName` and `typeName`. A table of one's own (CSV, JSON lines, Parquet) has the columns `feature` or
`index` and `name` or `description`, and may have `explainer`, `method` and `licence`. All are read by the reader of
users' tables. Descriptions are kept as they are, HTML and control characters included; showing them safely is for those
who show.

A file that is of another SAE is refused as a whole. A row without a usable name is left out and counted. Of two names
of one feature by the same explainer the later one counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.base.number_words import counted
from featurestore.errors import NamesError
from featurestore.names.merging import MOST_CHARACTERS
from featurestore.names.table import NameRow
from featurestore.names.which_sae import NamedSae
from featurestore.tables.table import Table, column_names, no_column, read_table
from featurestore.tables.values import document_id, document_text
from featurestore.url_secrets import shown

_FEATURE, _TEXT = ("feature", "index"), ("name", "description")
_OPTIONAL = {
    "explainer": ("explainer", "explanationModelName"),
    "method": ("method", "typeName"),
    "licence": ("licence", "license"),
}
_MODEL, _SAE = "modelId", "layer"  # of an export: both are there, or it is a table of one's own
_MOST_LABEL = 200  # characters of an explainer's name: no model has a longer one


@dataclass(frozen=True)
class Imported:
    """What files hold.

    Attributes:
        rows: Their names, each (feature, explainer, method) once.
        notes: What to know about them, in sentences.
    """

    rows: list[NameRow]
    notes: tuple[str, ...]


def read_names(
    paths: Sequence[str],
    sae: NamedSae,
    explainer: str | None = None,
    licence: str | None = None,
    origins: Sequence[str] | None = None,
) -> Imported:
    """Read names from files; nothing is kept yet.

    Args:
        paths: Files, patterns or directories, local or as URLs.
        sae: Which SAE they have to be of.
        explainer: Who wrote the names of files that do not say it.
        licence: Theirs, where files do not say it.
        origins: Where each of the paths is from; themselves where None.

    Raises:
        TableError: A file cannot be read, or is cut off.
        NamesError: One is of another SAE, has no columns of names, or not one row that can be used.
    """
    found: dict[tuple[int, str, str, str], NameRow] = {}
    notes: list[str] = []
    n_rows = 0
    for path, origin in zip(paths, origins or paths, strict=True):
        one = _File(path, sae, explainer, licence, origin)
        for row in one.rows():
            found[row.key] = row
            n_rows += 1
        notes += one.notes()
    if n_rows > len(found):
        again = counted(n_rows - len(found), "name")
        notes.append(f"{again} of features that the same explainer names again further on; the last one counts")
    return Imported(list(found.values()), tuple(notes))


class _File:
    """One file of names, or several that a pattern matches."""

    def __init__(self, path: str, sae: NamedSae, explainer: str | None, licence: str | None, origin: str) -> None:
        self._sae, self._explainer, self._licence, self._origin = sae, explainer, licence, origin
        there = column_names(path)
        self._is_export = {_MODEL, _SAE} <= set(there)
        if self._is_export:
            self._columns = {"feature": _first(("index",), there, path), "text": _first(("description",), there, path)}
        else:
            self._columns = {"feature": _first(_FEATURE, there, path), "text": _first(_TEXT, there, path)}
        for key, names in _OPTIONAL.items():
            if (name := next((name for name in names if name in there), None)) is not None:
                self._columns[key] = name
        wanted = [*self._columns.values(), *((_MODEL, _SAE) if self._is_export else ())]
        self._table: Table = read_table(path, wanted)
        self._left_out = 0
        self._first_problem = ""

    def rows(self) -> Iterator[NameRow]:
        """Its names; NamesError where it is of another SAE or holds none."""
        if self._is_export:
            self._check_sae()
        columns = self._table.columns
        lists = {key: columns[name] for key, name in self._columns.items()}
        n = 0
        for at in range(len(lists["feature"])):
            row = self._row(at, {key: values[at] for key, values in lists.items()})
            if row is not None:
                n += 1
                yield row
        if not n:
            why = f" ({self._first_problem})" if self._first_problem else ""
            raise NamesError(f"{self._table.name}: holds no name that can be used{why}; check the file")

    def notes(self) -> list[str]:
        """What a reader must know of it, in sentences."""
        notes = self._table.notes()
        if self._left_out:
            left = counted(self._left_out, "row")
            notes.append(f"{self._table.name}: {left} without a name that can be used ({self._first_problem})")
        return notes

    def _row(self, at: int, values: dict[str, Any]) -> NameRow | None:
        feature, problem = self._feature(at, values["feature"])
        text, unusable = (None, None) if problem else document_text(values["text"], self._columns["text"])
        problem = problem or unusable
        if text is not None and not text.strip():
            problem = "the name is empty"
        elif text is not None and len(text) > MOST_CHARACTERS:
            problem = f"the name has {len(text):,} characters; {MOST_CHARACTERS:,} are the limit"
        if problem or feature is None or text is None:
            self._left_out += 1
            self._first_problem = self._first_problem or f"row {at:,}, {problem}"
            return None
        return NameRow(
            feature=feature,
            text=text,
            source="imported",
            explainer=_label(values.get("explainer")) or self._explainer,
            method=_label(values.get("method")),
            licence=_label(values.get("licence")) or self._licence,
            origin=shown(self._origin),
        )

    def _feature(self, at: int, value: Any) -> tuple[int | None, str | None]:
        """(number, problem) of a row; NamesError where the SAE has no such feature."""
        text, problem = document_id(value, self._columns["feature"])
        if problem or text is None:
            return None, (problem or "it names no feature").replace("the id", "the number")
        if not (text.isascii() and text.isdecimal() and len(text) <= 18):
            return None, f"'{text[:20]}' is no number of a feature"
        feature = int(text)
        if feature >= self._sae.d_sae:
            raise NamesError(
                f"{self._table.name}: row {at:,} names feature {feature:,}, and {self._sae.title} has features 0 to "
                f"{self._sae.d_sae - 1:,}; these are names of another SAE"
            )
        return feature, None

    def _check_sae(self) -> None:
        """Refuse an export of another SAE, or of several."""
        pairs = set(zip(map(_label, self._table.columns[_MODEL]), map(_label, self._table.columns[_SAE]), strict=True))
        ids = sorted(f"{model}/{sae}" for model, sae in pairs if model and sae)
        if len(ids) > 1:
            raise NamesError(
                f"{self._table.name}: holds names of {counted(len(ids), 'SAE')} ({', '.join(ids[:3])}"
                f"{', ...' if len(ids) > 3 else ''}); import the files of one"
            )
        for problem in (contradiction(self._sae, one) for one in ids):
            if problem:
                raise NamesError(
                    f"{self._table.name}: these are names of {ids[0]}, and {self._sae.title} is {problem}; import them "
                    "for the SAE that they are of"
                )


def contradiction(sae: NamedSae, neuronpedia_id: str) -> str | None:
    """What an SAE is instead of the one that has this id at Neuronpedia; None where nothing contradicts it.

    The registry's id decides where there is one. Else the layer and the model are compared, as far as both are known;
    one model has several names (`google/gemma-2-2b` and `gemma-2-2b`, `gpt2` and `gpt2-small`), so only names of which
    neither contains the other contradict.
    """
    if sae.neuronpedia is not None:
        return None if sae.neuronpedia.lower() == neuronpedia_id.lower() else sae.neuronpedia
    model, _, source = neuronpedia_id.partition("/")
    layer = re.match(r"(\d{1,4})-", source)
    if layer and sae.layer is not None and int(layer[1]) != sae.layer:
        return f"of layer {sae.layer}"
    ours, theirs = ((sae.model or "").rsplit("/", 1)[-1].lower(), model.lower())
    if ours and theirs and ours not in theirs and theirs not in ours:
        return f"of {sae.model}"
    return None


def _first(names: Sequence[str], there: Sequence[str], path: str) -> str:
    found = next((name for name in names if name in there), None)
    if found is None:
        wanted = " or ".join(f"'{name}'" for name in names)
        raise NamesError(f"{no_column(path, names[0], there)}; names need a column {wanted}")
    return found


def _label(value: Any) -> str | None:
    """A short text of a row; None where there is none, or something else."""
    if not isinstance(value, str) or not value.strip() or len(value) > _MOST_LABEL:
        return None
    return value.strip().encode("utf-8", "replace").decode()
