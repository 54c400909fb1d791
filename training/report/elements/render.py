"""A page from plain dictionaries: templates with escaping, one style sheet, one script, a policy that allows no more.

The policy names the style sheet and the script by their hashes, so whatever a text might smuggle in, a browser runs
none of it and asks nobody for anything. There is no clock in a page: the same figures give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from training.report.elements.plain import cut, plain, visible

FOLDER = "templates"


def render(template: str, page: Mapping[str, Any]) -> bytes:
    """The whole HTML file, UTF-8.

    Args:
        template: Name of a template.
        page: What it shows; strings of strangers as they are, SVG as Markup.
    """
    style, script = _source("style.css"), _source("page.js")
    text = (
        _environment()
        .get_template(template)
        .render(
            page=page,
            style=Markup(style),
            script=Markup(script),
            policy=f"default-src 'none'; style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'; "
            "base-uri 'none'; form-action 'none'",
        )
    )
    # A half of a surrogate pair is spelled out by then; what comes from elsewhere must not stop the page.
    return text.encode("utf-8", "replace")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: "" if value is None else value,
    )
    environment.filters |= {"visible": visible, "plain": plain, "cut": cut}
    return environment


@cache
def _source(name: str) -> str:
    return (files(__package__) / FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
