"""What a study calls the stores that it reads beside its own: the last folder, and more where that says too little."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from featurestore.url_secrets import shown


def store_name(uri: str) -> str:
    """The last folder of a store."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def store_names(uris: Iterable[str]) -> dict[str, str]:
    """URI -> the last folder of its store, behind as many folders above it as tell it from each other store."""
    found, places = {}, {uri: store_place(uri) for uri in uris}
    for uri, mine in places.items():
        others = [place for place in places.values() if place != mine]
        deep = (n for n in range(1, len(mine)) if all(place[-n:] != mine[-n:] for place in others))
        found[uri] = "/".join(mine[-next(deep, len(mine)) :])
    return found


def store_place(uri: str) -> tuple[str, ...]:
    """The folders that lead to a store, the last one its own: equal where two spellings mean one store."""
    scheme, mark, path = shown(uri).rstrip("/").rpartition("://")
    *above, _ = (path if mark else os.path.normpath(Path(path).absolute())).split("/")
    return (*([f"{scheme}:/"] if mark else []), *above, store_name(uri))
