"""Arrow lists become CSR arrays that scipy can trust, and row pointers pass 2**31."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from featurestore.format.schema import SaeColumns
from featurestore.reading.csr import Assembler, Rows, rows_of_batch, shifted, to_csr
from featurestore.reading.selection import Selection

SAE = SaeColumns("s", 10, ("max",))
ALL = Selection.of(SAE, "max", None, np.float32, None, None)


WIDE = {"name": "s", "pools": ("max",), "indices": "s__indices", "column": SAE.column}  # whatever the schema allows


def batch(indices: list[list[int]], values: list[list[float]]) -> pa.RecordBatch:
    lists = pa.array(indices, pa.list_(pa.uint32())), pa.array(values, pa.list_(pa.float32()))
    return pa.RecordBatch.from_arrays([*lists], names=["s__indices", "s__max"])


def test_lists_are_rows() -> None:
    rows = rows_of_batch(ALL, batch([[1, 9], [], [0]], [[2.0, 3.0], [], [4.0]]), None)
    assert to_csr(rows, 10).toarray()[[0, 0, 2], [1, 9, 0]].tolist() == [2, 3, 4]
    assert rows.indices.dtype == np.int32 and rows.indptr.tolist() == [0, 2, 2, 3]


def test_a_slice_of_a_batch_has_only_its_own_rows() -> None:
    sliced = batch([[1, 9], [], [0], [5]], [[2, 3], [], [4], [6]]).slice(1, 2)
    rows = rows_of_batch(ALL, sliced, None)
    assert (rows.indptr.tolist(), rows.indices.tolist(), rows.data.tolist()) == ([0, 0, 1], [0], [4])


def test_decoded_memory_is_handed_on_without_a_copy() -> None:
    values = pa.py_buffer(bytearray(np.float32([2, 3]).tobytes()))
    lists = pa.ListArray.from_arrays(
        pa.array([0, 2], pa.int32()), pa.Array.from_buffers(pa.float32(), 2, [None, values])
    )
    indices = pa.array([[1, 2]], pa.list_(pa.uint32()))
    rows = rows_of_batch(ALL, pa.RecordBatch.from_arrays([indices, lists], names=["s__indices", "s__max"]), None)
    assert rows.data.ctypes.data == values.address and rows.data.flags.writeable


def test_memory_that_others_may_see_is_copied() -> None:
    shared = batch([[1, 2]], [[2.0, 3.0]])
    frozen = pa.py_buffer(np.float32([2, 3]).tobytes())
    lists = pa.ListArray.from_arrays(
        pa.array([0, 2], pa.int32()), pa.Array.from_buffers(pa.float32(), 2, [None, frozen])
    )
    rows = rows_of_batch(ALL, pa.RecordBatch.from_arrays([shared[0], lists], names=["s__indices", "s__max"]), None)
    assert rows.data.ctypes.data != frozen.address and rows.data.flags.writeable


@pytest.mark.parametrize(
    ("indices", "said"),
    [
        ([[1], [3, 10]], "'s__indices' holds 10, but d_sae is 10"),
        ([[1], [2**32 - 1]], "holds 4294967295"),
        ([[1], [3, 2]], "'s__indices' is not strictly increasing"),
        ([[4, 4]], "'s__indices' is not strictly increasing"),
    ],
)
def test_indices_that_scipy_must_not_see_are_refused(indices: list[list[int]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rows_of_batch(ALL, batch(indices, [[1.0] * len(row) for row in indices]), None)


@pytest.mark.parametrize("where", [1, 40_000, 32_768, 99_999])
def test_a_fall_is_found_wherever_it_lies(where: int) -> None:
    wide = Selection.of(SaeColumns("s", 100_000, ("max",)), "max", None, np.float32, None, None)
    indices = np.arange(100_000, dtype=np.uint32)
    indices[where] = indices[where - 1]
    with pytest.raises(ValueError, match="not strictly increasing"):
        rows_of_batch(wide, batch([indices.tolist()], [[1.0] * 100_000]), None)


def test_a_new_row_may_start_lower_also_after_empty_rows() -> None:
    rows = rows_of_batch(ALL, batch([[], [5], [], [], [2], [2], []], [[], [1], [], [], [1], [1], []]), None)
    assert rows.indptr.tolist() == [0, 0, 1, 1, 1, 2, 3, 3]


def test_lists_that_are_not_parallel_are_refused() -> None:
    with pytest.raises(ValueError, match="row 1: 's__max' is not as long as 's__indices'"):
        rows_of_batch(ALL, batch([[1], [3]], [[1.0], []]), None)


def test_values_that_are_no_activations_do_not_become_entries() -> None:
    rows = rows_of_batch(ALL, batch([[1, 2, 3, 4]], [[0.0, float("nan"), -1.0, 2.0]]), None)
    assert (rows.indices.tolist(), rows.data.tolist()) == ([4], [2])


def test_the_widest_saes_get_64_bit_indices() -> None:
    widest = Selection.of(SimpleNamespace(**{**WIDE, "d_sae": 2**32 - 1}), "max", None, np.float32, None, None)
    rows = rows_of_batch(widest, batch([[1, 2**32 - 2]], [[1.0, 2.0]]), None)
    assert rows.indices.dtype == np.int64 and rows.indices.tolist() == [1, 2**32 - 2]
    assembler = Assembler(1, 2**32 - 1, np.dtype(np.float32))
    assembler.add(rows)
    assert to_csr(assembler.result(), 2**32 - 1).indices.tolist() == [1, 2**32 - 2]


@pytest.mark.parametrize("expected", [0, 1, 2, 3, 6, 100])
def test_pieces_are_joined_whatever_number_of_entries_was_expected(expected: int) -> None:
    pieces = [([0, 1, 3], [1, 0, 2]), ([0, 0], []), ([0, 3], [0, 1, 2])]
    assembler, value = Assembler(4, 10, np.dtype(np.float32), expected), 0
    for indptr, indices in pieces:
        data = np.arange(value, value + len(indices), dtype=np.float32)
        assembler.add(Rows(np.int32(indptr), np.int32(indices), data))
        value += len(indices)
    rows = assembler.result()
    assert rows.indptr.tolist() == [0, 1, 3, 3, 6] and rows.indptr.dtype == np.int64
    assert rows.indices.tolist() == [1, 0, 2, 0, 1, 2] and rows.data.tolist() == [0, 1, 2, 3, 4, 5]


def test_row_pointers_pass_the_limit_of_arrows_offsets() -> None:
    behind = shifted(np.int32([5, 2**31 - 1]), 2**31 + 7)
    assert behind.dtype == np.int64 and behind.tolist() == [2**31 + 12, 2**32 + 6]
