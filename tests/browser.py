"""A browser without a network, where one can be had: Debian's Chromium, driven by playwright."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from featurestore.storage.cache import cache_path

AXE = "axe-core-4.14.1"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no chromium; apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, from npm, kept in this machine's cache; skips where it cannot be had."""
    kept = cache_path("tests") / f"{AXE}.js"
    if not kept.is_file():
        npm, tar = shutil.which("npm"), shutil.which("tar")
        if npm is None or tar is None:
            pytest.skip("axe-core comes from npm, which is not installed")
        kept.parent.mkdir(parents=True, exist_ok=True)
        name = AXE.replace("core-", "core@")
        fetched = subprocess.run([npm, "pack", "--silent", name], cwd=kept.parent, capture_output=True, timeout=120)
        if fetched.returncode:
            pytest.skip(f"npm cannot fetch {name}")
        unpack = [tar, "xzf", f"{AXE}.tgz", "package/axe.min.js"]
        subprocess.run(unpack, cwd=kept.parent, check=True)
        (kept.parent / "package" / "axe.min.js").replace(kept)
    return kept.read_text(encoding="utf-8")


class Opened:
    """A page that was opened, and everything that it said or asked for."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.heard: list[str] = []
        page.on("console", lambda message: self.heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.heard.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.heard.append(f"request: {request.url}"))


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens HTML with the network off: `opened(page, width=390, scheme="dark", scripts=False)`."""
    contexts = []

    def go(html: bytes, width: int = 1400, scheme: str = "light", scripts: bool = True) -> Opened:
        path = tmp_path / f"page-{len(contexts)}.html"
        path.write_bytes(html)
        context = browser.new_context(
            offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
        )
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.goto(path.as_uri())
        assert found.heard.pop(0) == f"request: {path.as_uri()}"
        return found

    yield go
    for context in contexts:
        context.close()
