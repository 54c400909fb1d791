"""Write features as AnnData on zarr 3: X as CSR, obs the metadata, var the features."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.convert.source import Source

# Non-zeros in a zarr chunk: 4 MiB before compression, as AnnData's own writer has it to within a factor of two.
_CHUNK_ENTRIES = 1 << 20


def write_anndata(source: Source, path: Path) -> int:
    """AnnData's on-disk format on zarr 3: X as CSR, obs the metadata, var the features."""
    with warnings.catch_warnings():  # both packages announce the defaults of their next versions
        warnings.simplefilter("ignore", UserWarning)
        return _write(source, path)


def _write(source: Source, path: Path) -> int:
    import anndata
    import zarr
    from scipy.sparse import csr_matrix

    indptr = source.indptr()
    nnz, n_rows = int(indptr[-1]), len(indptr) - 1
    obs = source.store.documents().collect().to_pandas().set_index("doc_id")
    empty = anndata.AnnData(X=csr_matrix((n_rows, source.d_sae), dtype=np.float32), obs=obs)
    empty.uns["sparsemill"] = {"fingerprint": source.store.fingerprint, "sae": source.sae, "pool": source.pool}
    with anndata.settings.override(zarr_write_format=3):
        empty.write_zarr(path)
    group: Any = zarr.open_group(path, mode="r+")["X"]
    wide = nnz >= 2**31 or source.d_sae > 2**31
    index = np.dtype(np.int64 if wide else np.int32)
    chunks = (max(1, min(nnz, _CHUNK_ENTRIES)),)
    for name, dtype, read in (
        ("indices", index, lambda X: X.indices),
        ("data", np.dtype(np.float32), lambda X: X.data),
    ):
        del group[name]
        array = group.create_array(name, shape=(nnz,), chunks=chunks, dtype=dtype)
        _fill(array, (read(X) for X in source.blocks()), chunks[0])
    del group["indptr"]
    group.create_array("indptr", shape=indptr.shape, chunks=(len(indptr),), dtype=np.int64)[:] = indptr
    zarr.consolidate_metadata(path)  # readers look there first
    return nnz


def _fill(array: Any, blocks: Iterator[np.ndarray], chunk: int) -> None:
    """Write blocks one after the other, in whole chunks, so that none is read and written again."""
    waiting: list[np.ndarray] = []
    at = held = 0
    for block in blocks:
        waiting.append(block)
        held += len(block)
        if held >= chunk:
            joined = np.concatenate(waiting)
            whole = held - held % chunk
            array[at : at + whole] = joined[:whole]
            waiting, at, held = [joined[whole:]], at + whole, held - whole
    if held:
        array[at : at + held] = np.concatenate(waiting)
