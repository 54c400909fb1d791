"""JSON arrays of objects are read like JSON lines, from any element on, in whatever blocks the bytes come."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import CorpusError
from featurestore.finding.files import SourceFile
from featurestore.tables import arrays
from featurestore.tables.arrays import elements, is_array, told_apart

FILE = SourceFile("/d", "/d/a.json", "a.json", "json", None, None, None)
TEXT = st.text(alphabet=st.sampled_from('ab"\\[]{},: \n\u00e9😀'), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner, max_size=3), max_leaves=4
)
OBJECTS = st.lists(st.dictionaries(TEXT, VALUES, max_size=3), min_size=1, max_size=6)


class Dribble(io.BytesIO):
    """Gives a few bytes at a time, whatever is asked for."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self.step = step

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self.step)


def read(data: bytes, offset: int = 0, step: int = 1 << 20) -> list[tuple[int, Any]]:
    return [(at, json.loads(text)) for at, text in elements(Dribble(data[offset:], step), offset, FILE)]


@settings(max_examples=150)
@given(OBJECTS, st.sampled_from([None, 0, 2]), st.booleans(), st.integers(1, 7))
def test_the_elements_are_those_that_json_finds_from_every_offset(
    objects: list[dict[str, Any]], indent: int | None, ascii_only: bool, step: int
) -> None:
    data = json.dumps(objects, indent=indent, ensure_ascii=ascii_only).encode()
    found = read(data, step=step)
    assert [value for _, value in found] == objects
    for row, (offset, _) in enumerate(found):
        assert read(data, offset, step) == found[row:]


@pytest.mark.parametrize(
    ("head", "array"),
    [
        (b'[{"a": 1}]', True),
        (b'\xef\xbb\xbf \n[\n  {"a": 1},\n', True),
        (b"[]", True),
        (b'[{"a": ["x"]\n, "b": 1}]', True),
        (b'{"a": 1}\n', False),
        (b'["a", "list"]\n{"a": 1}\n', False),
        (b'[{"a": 1}]\n{"a": 1}\n', False),
        (b"a,b\n1,2\n", False),
        (b"", False),
    ],
)
def test_an_array_is_told_from_lines_by_its_beginning(head: bytes, array: bool) -> None:
    assert is_array(head) == array
    file = SourceFile("/d", "/d/a.jsonl", "a.jsonl", "jsonl", None, None, None)
    told, stream = told_apart(file, io.BytesIO(head))
    assert told.format == ("json" if array else "jsonl")
    assert stream.read(5) + stream.read(1000) == head


def test_elements_that_are_no_objects_and_broken_ones_are_cut_out_too() -> None:
    data = b'[{"a": 1}, 5125, "x", null, [1, [2]], {"a" 1}, {"b": "]"} ,]'
    for step in (1, 3, 1000):
        cut = [text for _, text in elements(Dribble(data, step), 0, FILE)]
        assert cut == [b'{"a": 1}', b"5125", b'"x"', b"null", b"[1, [2]]", b'{"a" 1}', b'{"b": "]"}']


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'[{"a": 1}, {"a": 2}', "a.json: its JSON array is not closed by ']', so it may be cut off"),
        (b'[{"a": 1}, {"a": ', "the element at byte 11 has no end within"),
        (b'[{"a": 1}, {"a": "x', "the element at byte 11 has no end within"),
        (b'[{"a": 1} {"a": 2}]', "there is no comma behind the element that ends at byte 10"),
        (b'[{"a": 1}] [', "goes on after its JSON array, at byte 11"),
    ],
)
def test_an_array_in_which_rows_cannot_be_told_apart_is_refused(data: bytes, says: str) -> None:
    for step in (1, 1000):
        with pytest.raises(CorpusError) as refusal:
            read(data, step=step)
        assert says in str(refusal.value)


def test_an_element_without_an_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MAX_ELEMENT_BYTES", 1000)
    with pytest.raises(CorpusError, match="no end within"):
        read(b'[{"a": "' + b"x" * 10_000 + b'"}]', step=100)
