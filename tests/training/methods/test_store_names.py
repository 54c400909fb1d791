"""Stores are called by their last folder, and by more where that is another's too."""

from __future__ import annotations

import pytest

from training.methods.store_names import store_name, store_names, store_place


@pytest.mark.parametrize(
    ("uris", "names"),
    [
        (["/runs/qwen/store/"], ["store"]),
        (["/runs/a", "/runs/b"], ["a", "b"]),
        (["/runs/qwen/store", "/runs/llama/store"], ["qwen/store", "llama/store"]),
        (["/x/a/store", "/y/a/store", "/y/b/other"], ["x/a/store", "y/a/store", "other"]),
        (["s3://one/store", "s3://two/store"], ["one/store", "two/store"]),
        (["s3://one/store", "gs://one/store"], ["s3://one/store", "gs://one/store"]),
        (["/store", "/a/store"], ["/store", "a/store"]),
        (["s3://key:secret@one/store", "s3://two/store"], ["one/store", "two/store"]),
    ],
)
def test_as_many_folders_are_named_as_tell_stores_apart(uris: list[str], names: list[str]) -> None:
    assert store_names(uris) == dict(zip(uris, names, strict=True))
    assert store_names(reversed(uris)) == store_names(uris)


def test_spellings_of_one_store_are_one_place_and_have_one_name() -> None:
    spellings = ["/runs/a/store", "/runs/a/store/", "/runs/b/../a/./store"]
    assert len({store_place(uri) for uri in spellings}) == 1
    assert set(store_names(spellings).values()) == {"store"} == {store_name(uri) for uri in spellings}
    assert store_place("/a/store") != store_place("a/store")
