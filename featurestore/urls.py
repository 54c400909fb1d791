"""URLs and the secrets in them: what may be printed of one, and whether one carries what it should not.

Light enough for those who only read a spec: no Arrow, no fsspec.
"""

from __future__ import annotations

import re

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PASSWORD = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+://)[^/@:?]*:(?!\d+(?:/|$))[^@]*@")  # AWS's secrets may hold a "/"
_USER = re.compile(r"(?:s3a?|gs|gcs|https?|ftp|sftp)://[^/@?]*@", re.IGNORECASE)
_SECRET_QUERY = re.compile(
    r"[?&](?:[^=&]*(?:secret|token|passw|signature|credential|access_?key|api_?key)[^=&]*|sig)=", re.IGNORECASE
)


def shown(uri: str) -> str:
    """A URL as it may be printed: without user, password and query, which can hold credentials."""
    uri = _PASSWORD.sub(r"\1", uri)
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]+://)(?:[^/@]*@)?([^?]*)(\?.*)?$", r"\1\2", uri)


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
