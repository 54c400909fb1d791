"""The pages as a site: built without a warning, silent, readable at both widths, nothing serious for axe."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LOOKED_AT = [
    "index.html",
    "tutorials/csv-to-report.html",
    "how-to/one-gpu-box.html",
    "explanations/intervals.html",
    "reference/commands.html",
    "reference/job.html",
    "results.html",
    "repository/featurestore/FORMAT.html",
]


class _Tolerant(yaml.SafeLoader):
    """mkdocs.yml may name Python objects; none of ours does."""


def nav_pages(nav: Any) -> Iterator[str]:
    """Every page of a navigation."""
    for entry in nav if isinstance(nav, list) else nav.values():
        if isinstance(entry, str):
            yield entry
        else:
            yield from nav_pages(entry)


def test_every_page_has_its_place_in_the_navigation() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=_Tolerant)
    placed = list(nav_pages(config["nav"]))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(placed) == sorted(there)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` does, a warning being an error."""
    pytest.importorskip("material", reason="mkdocs-material is in the extra `docs`")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr.strip(), done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site on loopback."""
    handler = functools.partial(_Silent, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.slow
def test_no_page_names_another_host_as_a_source(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for tag in ("<script src=", "<link rel=stylesheet href=", "<img src=", "<link rel=preconnect href="):
            for piece in text.replace('"', "").split(tag)[1:]:
                assert "://" not in piece[:8], f"{page.name}: {tag}{piece[:60]}"


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "light"), (1400, "dark")])
def test_pages_are_silent_fit_and_have_nothing_serious_for_axe(
    browser: Any, axe: str, address: str, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    heard: list[str] = []
    serious: list[str] = []
    for name in LOOKED_AT:
        page = context.new_page()
        page.on("request", lambda request: heard.append(request.url))
        page.on("console", lambda said: heard.append(f"console: {said.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.goto(f"{address}/{name}")
        page.wait_for_timeout(300)
        assert [one for one in heard if not one.startswith((address, "data:", "blob:"))] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate(axe)
        found = page.evaluate("axe.run()")["violations"]
        worst = [one for one in found if one["impact"] in ("serious", "critical")]
        serious += [f"{name}: {one['id']}: {one['nodes'][0]['html'][:200]}" for one in worst]
        page.close()
    context.close()
    assert serious == []
