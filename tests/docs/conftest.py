"""The browser of the reports' tests, for the pages of the site."""

from __future__ import annotations

from tests.training.report.conftest import axe, browser

__all__ = ["axe", "browser"]
