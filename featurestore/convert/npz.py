"""Write features as `scipy.sparse.save_npz` has them, in the memory of a batch.

scipy's own writer takes a whole matrix in memory. An npz is a zip of npy arrays, each of which is written here as it is
read: the number of non-zeros stands before the first of them, so the store is read three times.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from featurestore.convert.source import Source

_ZIP_BYTES = 1 << 20  # compressed at a time


def write_npz(source: Source, file: BinaryIO) -> int:
    """Fill a file; returns the number of non-zeros."""
    indptr = source.indptr()
    nnz = int(indptr[-1])
    wide = nnz >= 2**31 or source.d_sae > 2**31
    index = np.dtype(np.int64 if wide else np.int32)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, value in (("format", b"csr"), ("shape", np.array([len(indptr) - 1, source.d_sae]))):
            _npy(archive, name, np.asarray(value), iter([np.asarray(value)]))
        _npy(archive, "indptr", np.empty(len(indptr), index), iter([indptr.astype(index)]), shape=(len(indptr),))
        indices = (X.indices.astype(index, copy=False) for X in source.blocks())
        _npy(archive, "indices", np.empty(0, index), indices, shape=(nnz,))
        _npy(archive, "data", np.empty(0, np.float32), (X.data for X in source.blocks()), shape=(nnz,))
    return nnz


def _npy(
    archive: zipfile.ZipFile,
    name: str,
    like: np.ndarray,
    blocks: Iterator[np.ndarray],
    shape: tuple[int, ...] | None = None,
) -> None:
    head = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(like.dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(head, {**described, "shape": like.shape if shape is None else shape})
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        member.write(head.getvalue())
        for block in blocks:
            data = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
            for start in range(0, len(data), _ZIP_BYTES):
                member.write(data[start : start + _ZIP_BYTES].tobytes())
