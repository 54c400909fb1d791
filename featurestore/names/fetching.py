"""Names of an SAE from Neuronpedia's public bucket, as files on this machine, never without being asked for.

The bucket answers S3's list requests over HTTPS without an account. One SAE's explanations lie below
`v1/MODEL/SOURCE/explanations/` and, of other explainers, `explanations-EXPLAINER/`, in gzipped batches. What comes back
is anybody's: sizes and numbers are bounded, names of files are checked, and the contents go through the same reader as
a file that a user brings.
"""

from __future__ import annotations

import html
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

from featurestore.base.number_words import counted, first_line, size
from featurestore.errors import NamesError, SparsemillError
from featurestore.url_secrets import shown

NEURONPEDIA = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com"
TIMEOUT_SECONDS = 30.0  # without a byte; S3 answers within one
MOST_FILES = 10_000  # an SAE of a million features has a thousand batches of each explainer
MOST_BYTES = 256 << 20  # of one file: a batch has some hundred kilobytes
_MOST_PAGE = 8 << 20  # bytes of a list: a thousand keys are 400 kB
_CHUNK = 1 << 20

_ID = re.compile(r"[\w.-]{1,100}/[\w.-]{1,100}", re.ASCII)
_KEY = re.compile(r"<Key>([^<]{1,1024})</Key>")
_NEXT = re.compile(r"<NextContinuationToken>([^<]{1,4096})</NextContinuationToken>")
_BATCH = re.compile(r"explanations(?:-[\w.-]{1,100})?/[\w-]{1,100}\.jsonl(?:\.gz)?", re.ASCII)


def fetch_names(
    neuronpedia_id: str, folder: Path, base: str = NEURONPEDIA, say: Callable[[str], None] = lambda _: None
) -> dict[Path, str]:
    """Fetch the explanations of one SAE.

    Args:
        neuronpedia_id: `MODEL/SOURCE`, as sae-lens' registry has it.
        folder: Where the files go; it is there and empty.
        base: URL of the bucket.
        say: Told what is being done.

    Returns:
        File -> the URL it is from, in the order of the URLs.

    Raises:
        NamesError: The id or the URL is none, or the bucket has no names of it.
        SparsemillError: The bucket could not be reached, or its answer is none.
    """
    if not _ID.fullmatch(neuronpedia_id):
        raise NamesError(f"'{neuronpedia_id[:100]}' is no id of an SAE at Neuronpedia; give MODEL/SOURCE")
    if not base.startswith(("https://", "http://")):
        raise NamesError(f"{shown(base)}: is no URL of a bucket; give one that begins with https://")
    prefix = f"v1/{neuronpedia_id}/"
    keys = sorted(key for key in _keys(base, prefix + "explanations") if _BATCH.fullmatch(key.removeprefix(prefix)))
    if not keys:
        raise NamesError(f"{shown(base)} has no names of {neuronpedia_id}; not every SAE was explained there")
    say(f"fetching {counted(len(keys), 'file')} of names of {neuronpedia_id} from {shown(base)}")
    files = {}
    for at, key in enumerate(keys):
        url = f"{base.rstrip('/')}/{urllib.parse.quote(key)}"
        path = folder / f"{at:05d}.jsonl{'.gz' if key.endswith('.gz') else ''}"
        with path.open("xb") as file:
            for block in _get(url, MOST_BYTES):
                file.write(block)
        files[path] = url
    return files


def _keys(base: str, prefix: str) -> Iterator[str]:
    """The keys of the bucket that begin so."""
    token, n = "", 0
    while n <= MOST_FILES:
        n += 1  # a page without keys counts too: lists end
        query = {"list-type": "2", "prefix": prefix} | ({"continuation-token": token} if token else {})
        url = f"{base.rstrip('/')}/?{urllib.parse.urlencode(query)}"
        page = b"".join(_get(url, _MOST_PAGE)).decode("utf-8", "replace")
        if "<ListBucketResult" not in page:
            raise SparsemillError(f"{shown(base)}: does not answer as a bucket does; check the URL")
        for key in _KEY.findall(page):
            n += 1
            yield html.unescape(key)
        following = _NEXT.search(page)
        if following is None or html.unescape(following[1]) == token:
            return
        token = html.unescape(following[1])
    raise SparsemillError(f"{shown(base)}: lists more than {MOST_FILES:,} files below {prefix}; check the URL")


def _get(url: str, most: int) -> Iterator[bytes]:
    """The bytes at a URL, some at a time."""
    n, told = 0, None
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            told = answer.headers.get("Content-Length")
            while block := answer.read(_CHUNK):
                n += len(block)
                if n > most:
                    raise SparsemillError(f"{shown(url)}: is larger than {size(most)}; nothing was imported")
                yield block
    except urllib.error.HTTPError as exc:
        raise SparsemillError(f"{shown(url)}: could not be fetched (it answers {exc.code}); try again later") from None
    except (OSError, HTTPException, ValueError) as exc:
        reason = getattr(exc, "reason", None) or exc
        said = first_line(reason) if isinstance(reason, BaseException) else str(reason)
        raise SparsemillError(
            f"{shown(url)}: could not be reached ({said}); check the network, or import files fetched elsewhere"
        ) from None
    if told is not None and told.isdecimal() and n != int(told):
        raise SparsemillError(
            f"{shown(url)}: broke off after {n:,} of {int(told):,} bytes; nothing was imported, try again"
        )
