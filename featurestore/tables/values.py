"""What the values of a record mean: ids, texts, and the types that kept columns are stored in.

A column gets the narrowest of four types that loses nothing of any of its values; CSV fields, all text, count as
numbers only where printing the number gives the field back ("007" and "1.10" stay text).
"""

from __future__ import annotations

import json
import math
from collections.abc import Set
from typing import Any

from featurestore.tables.record import MISSING

_EXACT_IN_FLOAT64 = 2**53
_INT64 = 2**63
_JSON_KINDS = {
    bool: "a truth value",
    int: "a number",
    float: "a number",
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
    if isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(raw):
        return str(raw), None
    if raw is MISSING:
        return None, f"the row has no id '{column}'"
    return None, f"the id in '{column}' is {'no number' if isinstance(raw, float) else kind_of_json(raw)}"


def document_text(raw: Any, column: str) -> tuple[str | None, str | None]:
    """(text, error) of a row; exactly one of them is None."""
    if isinstance(raw, str):
        return (raw, None) if _is_unicode(raw) else (None, f"the text in '{column}' holds a lone surrogate")
    if raw is MISSING:
        return None, f"the row has no text '{column}'"
    return None, f"the text in '{column}' is {kind_of_json(raw)}"


def kind_of(value: Any, is_csv: bool) -> str:
    """The kind of a kept value: "bool", "int", "long" (not exact as a float), "float", "text", or "" for none."""
    if value is None or value is MISSING or isinstance(value, bytes):
        return ""
    if is_csv:
        value = _csv_value(value)
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if abs(value) <= _EXACT_IN_FLOAT64:
            return "int"
        return "long" if -_INT64 <= value < _INT64 else "text"
    return "float" if isinstance(value, float) else "text"


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
    found = kinds - {""}
    if found == {"bool"}:
        return "bool"
    if found and found <= {"int", "long"}:
        return "int64"
    return "float64" if found and found <= {"int", "float"} else "string"


def stored_value(raw: Any, kept_type: str, column: str) -> tuple[Any, str | None]:
    """(value as `kept_type`, error); nested values and mixed columns become JSON text.

    Raises:
        ValueError, TypeError, OverflowError: The value is not of that type, so it is not the one that was scanned.
    """
    if raw is None or raw is MISSING:
        return None, None
    if isinstance(raw, bytes):
        return None, f"the value of '{column}' is not UTF-8"
    if kept_type == "string":
        text = raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False, default=str)
        return (text, None) if _is_unicode(text) else (None, f"the value of '{column}' holds a lone surrogate")
    if kept_type == "bool":
        return raw if isinstance(raw, bool) else raw in {"true", "True"}, None
    return (int(raw) if kept_type == "int64" else float(raw)), None


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can carry the text; JSON can spell halves of surrogate pairs that it cannot."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
