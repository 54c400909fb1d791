"""Accept the values of a spec that are neither numbers nor texts: truth values, values of columns, paths.

They are types for the fields of pydantic models; what YAML makes of the letters in a file is left to `spec_yaml`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler


class OneOrMore(BeforeValidator):
    """Makes a list of a lone value, and lets editors take it too: `pool: max` stands for `pool: [max]`."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        several = handler(core)
        return {"anyOf": [several["items"], several]}


_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_VARIABLE = re.compile(
    r"\$\{[^}]*\}|\$\([^)]*\)|`[^`]+`"  # ${OUT} of shells, $(pwd), `pwd`
    r"|\$(?:env:)?[A-Za-z_]\w*"  # $OUT, $env:OUT of PowerShell
    r"|\{\{.*?\}\}"  # {{ out }} of templates
    r"|%[A-Za-z_][\w()]*%"  # %OUT% of Windows
)
_PERCENT_ENCODED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")


def _flag(value: object) -> object:
    return _FLAGS.get(value.lower(), value) if isinstance(value, str) else value


def _as_written(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return getattr(value, "written", str(value)) if isinstance(value, int | float) else value


def _written_out(path: str) -> str:
    found = _VARIABLE.search(path)
    if found is not None and found[0].startswith("%") and ("://" in path or _PERCENT_ENCODED.fullmatch(path)):
        found = None  # a character as URLs write it, which downloaded files take over into their names
    if found is not None:
        raise ValueError(
            f"holds the variable {found[0]}, and variables are not looked up, so that it means the same everywhere; "
            "write out what it stands for"
        )
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"there is no user {path.split('/')[0]} on this machine; write the path out") from None
    return path


_FlagWritten = bool | Literal["yes", "no", "on", "off"]
Flag = Annotated[bool, Field(strict=True), BeforeValidator(_flag, json_schema_input_type=_FlagWritten)]
"""true or false; also yes, no, on and off, as YAML has them."""

_ValueWritten = Annotated[str, Field(min_length=1)] | bool | float
Value = Annotated[str, Field(min_length=1), BeforeValidator(_as_written, json_schema_input_type=_ValueWritten)]
"""A value of a column, as it was written: `2020`, `true` and `010` are these texts."""

PathText = Annotated[str, Field(min_length=1), AfterValidator(_written_out)]
"""A path or URL. `~` is the user's home; variables (`$OUT`, `${OUT}`, `%OUT%`) are refused by name, because what they
stand for would have to be written into the store, and would differ from machine to machine."""
