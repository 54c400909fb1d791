"""Settle what the values of a record mean: its id, its text, and the types that kept columns are stored in.

A column gets the narrowest of four types that loses nothing of any of its values, whichever files and formats they
come from. Whole numbers are int64; with other numbers beside them float64; but where one of them is beyond 2**53, which
a float64 cannot hold, floats that are whole (1.0) become int64 too, and with any other number the column is text. So is
a column of several kinds. NaN stays what it is in a float64 column, elsewhere it is null. CSV fields, all text, count
as numbers only where printing the number gives the field back ("007" and "1.10" stay text). Numbers in a column of
text have the text by which they compare (`same_value.value_text`).

A kept value that no type can hold (bytes that are not UTF-8, say) is null; its document is none the worse for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Set
from decimal import Decimal
from typing import Any

from featurestore.tables.record import MISSING, Unusable
from featurestore.tables.same_value import value_text

_EXACT_IN_FLOAT64 = 2**53
_INT64 = 2**63
_JSON_KINDS = {
    bool: "a truth value",
    int: "a number",
    float: "a number",
    Decimal: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def kind_of_json(value: Any) -> str:
    """How to call a JSON value in a message."""
    return _JSON_KINDS.get(type(value), "null" if value is None else "not UTF-8")


def document_id(raw: Any, column: str | None) -> tuple[str | None, str | None]:
    """(id, error) of a row; both None where the job names no id column. Numbers become their text."""
    if column is None:
        return None, None
    if isinstance(raw, str):
        if not raw:
            return None, f"the id in '{column}' is empty"
        return (raw, None) if _is_unicode(raw) else (None, f"the id in '{column}' holds a lone surrogate")
    if (isinstance(raw, int) and not isinstance(raw, bool)) or (
        isinstance(raw, float | Decimal) and math.isfinite(raw)
    ):
        return value_text(raw), None
    if raw is MISSING:
        return None, f"the row has no id '{column}'"
    if isinstance(raw, Unusable):
        return None, f"the id in '{column}' {raw.reason}"
    return None, f"the id in '{column}' is {'no number' if isinstance(raw, float) else kind_of_json(raw)}"


def document_text(raw: Any, column: str) -> tuple[str | None, str | None]:
    """(text, error) of a row; exactly one of them is None."""
    if isinstance(raw, str):
        return (raw, None) if _is_unicode(raw) else (None, f"the text in '{column}' holds a lone surrogate")
    if raw is MISSING:
        return None, f"the row has no text '{column}'"
    return None, f"the text in '{column}' is {kind_of_json(raw)}"


def document_turns(raw: Any, column: str) -> tuple[str | None, str | None]:
    """(conversation, error) of a row that holds a list of turns; exactly one of them is None.

    A turn is an object with the texts `role` and `content`; what else it has is left out. The conversation is JSON, one
    way to write each: `[{"role": "user", "content": "..."}]`. Such JSON as a text (in CSV) is a list too; any other
    text is a user's single turn.
    """
    if isinstance(raw, str):
        text, error = document_text(raw, column)
        turns = None if text is None else _list_in(text)
        if turns is None:
            return (
                (json.dumps([{"role": "user", "content": text}], ensure_ascii=False), None) if text else (text, error)
            )
        raw = turns
    if not isinstance(raw, list):
        return None, document_text(raw, column)[1]
    if not raw:
        return None, f"the conversation in '{column}' has no turn"
    kept = []
    for number, turn in enumerate(raw, 1):
        if not isinstance(turn, dict):
            return None, f"turn {number} of the conversation in '{column}' is {kind_of_json(turn)}, not an object"
        for key in ("role", "content"):
            if not isinstance(turn.get(key), str):
                said = kind_of_json(turn[key]) if key in turn else "not there"
                return None, f"'{key}' of turn {number} of the conversation in '{column}' is {said}"
            if not _is_unicode(turn[key]):
                return None, f"'{key}' of turn {number} of the conversation in '{column}' holds a lone surrogate"
        kept.append({"role": turn["role"], "content": turn["content"]})
    return json.dumps(kept, ensure_ascii=False), None


def _list_in(text: str) -> list[Any] | None:
    """The list of objects that a text spells as JSON, if it does."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and found and all(isinstance(turn, dict) for turn in found) else None


def kind_of(value: Any, is_csv: bool) -> str:
    """The kind of a kept value, "" for none.

    Whole numbers are "int" (exact as a float64), "long" (only as an int64) or "text" (as neither); floats are "whole"
    (exact as an int64), "float" or "nan"; the others "bool" and "text".
    """
    if value is None or value is MISSING or isinstance(value, bytes | Unusable):
        return ""
    if is_csv:
        value = _csv_value(value)
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if abs(value) <= _EXACT_IN_FLOAT64:
            return "int"
        return "long" if -_INT64 <= value < _INT64 else "text"
    if isinstance(value, float):
        if math.isnan(value):
            return "nan"
        return "whole" if value.is_integer() and -_INT64 <= value < _INT64 else "float"
    return "text"


def _csv_value(field: str) -> Any:
    """The truth value or number whose text the field is, or the field."""
    if field in {"true", "false", "True", "False"}:
        return field in {"true", "True"}
    if field[0] in "-0123456789" and len(field) <= 32:
        for number in (int, float):
            try:
                value = number(field)
            except ValueError:
                continue
            if str(value) == field and math.isfinite(value):
                return value
    return field


def column_type(kinds: Set[str]) -> str:
    """The stored type of a column whose values have these kinds: "string", "int64", "float64" or "bool"."""
    found = kinds - {"", "nan"}
    if found == {"bool"}:
        return "bool"
    if found == {"int"} and "nan" not in kinds:
        return "int64"
    if "long" in found:
        return "int64" if found <= {"int", "long", "whole"} else "string"
    return "float64" if kinds - {""} and found <= {"int", "whole", "float"} else "string"


def stored_value(raw: Any, kept_type: str, column: str) -> tuple[Any, str | None]:
    """(value as `kept_type`, why it is null though there was one); nested values become JSON text.

    Raises:
        ValueError, TypeError, OverflowError: The value is not of that type, so it is not the one that was scanned.
    """
    if raw is None or raw is MISSING:
        return None, None
    if isinstance(raw, str) and kept_type == "string":
        return (raw, None) if _is_unicode(raw) else (None, f"the value of '{column}' holds a lone surrogate")
    if isinstance(raw, bytes | Unusable):
        return None, f"the value of '{column}' {raw.reason if isinstance(raw, Unusable) else 'is not UTF-8'}"
    if kept_type == "string":
        text, problem = _kept_text(raw)
        return (None, f"the value of '{column}' {problem}") if problem else (text, None)
    if kept_type == "bool":
        return None if _is_nan(raw) else raw if isinstance(raw, bool) else raw in {"true", "True"}, None
    return (float(raw) if kept_type == "float64" else _as_int(raw)), None


def _kept_text(raw: Any) -> tuple[str | None, str | None]:
    try:
        text = _text_of(raw)
    except _NoJson as exc:
        return None, f"holds a value that {exc}"
    except TypeError as exc:  # an object of a table in memory
        return None, f"is among {exc}"
    return (text, None) if text is None or _is_unicode(text) else (None, "holds a lone surrogate")


def _text_of(raw: Any) -> str | None:
    if isinstance(raw, Decimal):
        return format(raw, "f")  # with the zeros that it was written with
    return json.dumps(raw, ensure_ascii=False, default=_in_json) if isinstance(raw, list | dict) else value_text(raw)


class _NoJson(Exception):  # noqa: N818  (carries a reason to the only place that catches it)
    pass


def _in_json(value: Any) -> str:
    """What `json` asks for: the leaves of nested values that it does not know."""
    if isinstance(value, Decimal):
        return format(value, "f")
    raise _NoJson(value.reason if isinstance(value, Unusable) else "is not UTF-8")


def _as_int(raw: Any) -> int | None:
    """An int64 of a number or a CSV field; floats among them are whole or NaN, so says the scan."""
    if isinstance(raw, int):
        return raw
    if _is_nan(raw):
        return None
    if isinstance(raw, str):
        value = _csv_value(raw)
        if isinstance(value, str):
            raise ValueError(f"{value} is no number")
        raw = value
    if raw != int(raw):
        raise ValueError(f"{raw} is not whole")
    return int(raw)


def _is_nan(raw: Any) -> bool:
    return isinstance(raw, float) and math.isnan(raw)


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can carry the text; JSON can spell halves of surrogate pairs that it cannot."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
