"""Decide what may be printed of a URL, and whether it carries a secret that it should not.

Light enough for those who only read a job: no Arrow, no fsspec. Opening URLs is left to `storage`.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_BUCKETS = r"(?:s3a?|gs|gcs)://"  # which have no port: what stands behind a colon there is a secret, even a number
_PASSWORD = re.compile(  # AWS's secrets may hold a "/"
    rf"^({_BUCKETS})[^/@:?]*:(?:[^@]*@|(?!\d+(?:/|$))[^/?]*)"
    r"|^([A-Za-z][A-Za-z0-9+.-]+://)[^/@:?]*:(?!\d+(?:/|$))[^@]*@",
    re.IGNORECASE,
)
_USER = re.compile(r"(?:s3a?|gs|gcs|(?:[a-z]+\+)?https?|ftp|sftp)://[^/@?]*@", re.IGNORECASE)
_SECRET_QUERY = re.compile(
    r"[?&](?:[^=&]*(?:secret|token|passw|signature|credential|access_?key|api_?key)[^=&]*|sig)=|\?.*//[^/&]*@",
    re.IGNORECASE,
)
_IN_TEXT = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]+://[^\s'"<>]*[^\s'"<>.,;:)\]}]""")  # without what ends a clause
_PIECES = re.compile(r"[/:@?&=]")


def shown(uri: str) -> str:
    """A URL as it may be printed: without user, password and query, which can hold credentials."""
    uri = _PASSWORD.sub(r"\1\2", uri)
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]+://)(?:[^/@]*@)?([^?]*)(\?.*)?$", r"\1\2", uri)


def split_query(uri: str) -> tuple[str, str]:
    """What names the file, and a URL's query with its "?"; a path has none."""
    head, mark, query = uri.partition("?") if _URL.match(uri) else (uri, "", "")
    return head, mark + query


def secret_in(text: str) -> str | None:
    """What secret a URL carries, in words that do not repeat it; None if it carries none or is no URL.

    `abfs://container@account` and `hf://datasets/owner/name@revision` name places and carry none.
    """
    if not _URL.match(text):
        return None
    if _PASSWORD.match(text):
        return "a user and password"
    if _USER.match(text):
        return "a user or key"
    return "a secret in its query" if _SECRET_QUERY.search(text) else None


def secret_within(text: str) -> str | None:
    """What secret a URL anywhere in a text carries, as `secret_in` says it."""
    return next((secret for url in _IN_TEXT.findall(text) if (secret := secret_in(url)) is not None), None)


def without_secrets(text: str) -> str:
    """A text as it may be printed: URLs in it that carry a secret are shown without it."""
    if "://" not in text:
        return text
    return _IN_TEXT.sub(lambda url: shown(url[0]) if secret_in(url[0]) else url[0], text)


def reason_about(uri: str, reason: str, instead: str) -> str:
    """What another library says of a URL; `instead` where it repeats a piece of the URL's secret."""
    if secret_in(uri) is None:
        return reason
    kept = shown(uri).lower()
    pieces = {piece.lower() for text in (uri, unquote(uri)) for piece in _PIECES.split(text)}
    secrets = {piece for piece in pieces if len(piece) > 2 and piece not in kept}
    said = without_secrets(reason)
    return instead if any(piece in said.lower() for piece in secrets) else said
