"""Fit the pages into a site of mkdocs: what they link to in the repository becomes pages of the site too.

On GitHub a link such as ../featurestore/FORMAT.md leads to the file. A site has only docs/, so each such file gets a
page under repository/, as it is where it is Markdown and as a listing of code where it is not; a folder's page lists
its files. mkdocs calls the functions below (`hooks` in mkdocs.yml).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PREFIX = "repository"
_LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)]*)?(\))")
_CODE = re.compile(r"```.*?```|`(?:(?!\n\n)[^`])*`", re.S)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".sh": "bash"}
MOST = 400_000  # bytes of a file that is shown; a record of a measurement has less


def on_files(files: Files, config: Any) -> Files:
    """Add a page for everything in the repository that a page links to, and for what those link to in turn."""
    left = [DOCS / file.src_uri for file in files.documentation_pages()]
    seen = set(left)
    while left:
        for target in _outside(left.pop()):
            if target in seen:
                continue
            seen.add(target)
            uri = _uri(target)
            files.append(File.generated(config, uri, content=_content(target), inclusion=InclusionLevel.NOT_IN_NAV))
            if target.suffix == ".md" or target.is_dir():
                left.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links that lead out of docs/ into links to pages of the site."""
    uri = page.file.src_uri
    source = _source(uri)
    return _replaced(markdown, source, uri) if source.suffix == ".md" or source.is_dir() else markdown


def on_post_page(output: str, **_: Any) -> str:
    """Give a name to the theme's search, which readers of screens announce as a dialogue without one."""
    return output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )


def _replaced(markdown: str, source: Path, uri: str) -> str:
    def link(found: re.Match[str]) -> str:
        target = _target(source, found[2])
        if target is None or (target.is_relative_to(DOCS) and not target.is_dir() and source.is_relative_to(DOCS)):
            return found[0]
        there = os.path.relpath(_uri(target), Path(uri).parent)
        return f"{found[1]}{there}{found[3] or ''}{found[4]}"

    pieces, end = [], 0
    for code in _CODE.finditer(markdown):
        pieces += [_LINK.sub(link, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*pieces, _LINK.sub(link, markdown[end:])])


def _outside(source: Path) -> list[Path]:
    """What a page links to that mkdocs does not have already."""
    if source.is_dir():
        return [path for path in sorted(source.iterdir()) if _is_shown(path)]
    if source.suffix != ".md":
        return []
    prose = _CODE.sub("", source.read_text(encoding="utf-8"))
    found = [_target(source, link[2]) for link in _LINK.finditer(prose)]
    return [path for path in found if path and (path.is_dir() or not path.is_relative_to(DOCS))]


def _target(source: Path, link: str) -> Path | None:
    """The file or folder that a link of a page leads to; None for other hosts and what is not there."""
    if "://" in link or link.startswith(("mailto:", "/")):
        return None
    folder = source if source.is_dir() else source.parent
    path = Path(os.path.normpath(folder / link))
    return path if path.exists() and path.is_relative_to(ROOT) else None


def _is_shown(path: Path) -> bool:
    hidden = path.name.startswith((".", "__pycache__")) or path.suffix in {".pyc", ".safetensors", ".png"}
    return not hidden and (path.is_dir() or path.stat().st_size < MOST)


def _uri(path: Path) -> str:
    """Where a file or folder stands in the site."""
    if path.is_relative_to(DOCS) and not path.is_dir():
        return path.relative_to(DOCS).as_posix()
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        return f"{PREFIX}/{name}/index.md".replace("/./", "/")
    if name.endswith("README.md"):  # mkdocs would make it the folder's own page
        return f"{PREFIX}/{name.removesuffix('README.md')}about.md"
    return f"{PREFIX}/{name}" if path.suffix == ".md" else f"{PREFIX}/{name}.md"


def _source(uri: str) -> Path:
    """The file or folder behind a page of the site."""
    if not uri.startswith(f"{PREFIX}/"):
        return DOCS / uri
    name = uri.removeprefix(f"{PREFIX}/")
    if name.endswith("index.md"):
        return ROOT / name.removesuffix("index.md")
    if name.endswith("about.md"):
        return ROOT / f"{name.removesuffix('about.md')}README.md"
    return ROOT / name if (ROOT / name).is_file() else ROOT / name.removesuffix(".md")


def _content(path: Path) -> str:
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        lines = [f"- [{inside.name}]({inside.name})" for inside in _outside(path)]
        return f"# {name}\n\n" + "\n".join(lines) + "\n"
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    text = path.read_text(encoding="utf-8", errors="replace")
    return f"# {name}\n\n~~~~{_LANGUAGES.get(path.suffix, 'text')}\n{text}\n~~~~\n"
