"""Indexes that the tests build go where the tests' other files go."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's cache, for one test."""
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
