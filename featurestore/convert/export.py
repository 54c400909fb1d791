"""One SAE's features in the formats of others: scipy npz, svmlight, AnnData on zarr. Each is streamed by batches.

Memory is a batch of rows, plus a few bytes of each document: for AnnData its metadata, for svmlight its label. npz and
zarr must know the number of non-zeros before the first is written, so the store is read twice or thrice; that costs
less than holding it. The rows are those of `FeatureStore.matrix`, in input order. npz and svmlight cannot hold ids:
they lie beside the file, in `{out}.documents.parquet`, with the rest of the documents' metadata.
"""

from __future__ import annotations

import io
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.foreign import writing
from featurestore.errors import StoreError, UsageError
from featurestore.reader import FeatureStore
from featurestore.reading.metadata import exact_columns
from featurestore.storage.files import shown
from featurestore.storage.outputs import check_free, local_path, whole_file
from featurestore.urls import split_query

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Non-zeros in a zarr chunk: 4 MiB before compression, as AnnData's own writer has it to within a factor of two.
_CHUNK_ENTRIES = 1 << 20
_ZIP_BYTES = 1 << 20


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        out: The file or directory.
        documents: The metadata beside it; None where it is inside.
        rows: Documents.
        columns: Features.
        nnz: Non-zeros.
    """

    out: str
    documents: str | None
    rows: int
    columns: int
    nnz: int


@dataclass(frozen=True)
class _Source:
    """What is exported; `blocks` reads it from the start each time."""

    store: FeatureStore
    sae: str
    pool: str
    binarize: float | None
    d_sae: int
    label: str | None

    def blocks(self) -> Iterator[csr_matrix]:
        for X, _ in self.store.batches(self.sae, self.pool, binarize=self.binarize):
            yield X

    def indptr(self) -> np.ndarray:
        """int64 [rows + 1]."""
        pieces = [np.zeros(1, np.int64), *(np.diff(X.indptr).astype(np.int64) for X in self.blocks())]
        return np.cumsum(np.concatenate(pieces))


def export_store(
    store: FeatureStore,
    out: str,
    kind: str,
    sae: str | None = None,
    pool: str = "max",
    binarize: float | None = None,
    label: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write one SAE's features of every document in another format.

    Args:
        store: An open store.
        out: A file, as a path or URL (npz, svmlight), or a local directory (anndata) that is not there yet.
        kind: One of FORMATS.
        sae: Which SAE; may be left out if the store has one.
        pool: A stored pooling, or "mean".
        binarize: As of `FeatureStore.matrix`.
        label: For svmlight: the kept column that is the target. Numbers and truth values are written as they are,
            text as the rank of its value among all values in alphabetical order.
        overwrite: Whether an earlier export there may be replaced.

    Raises:
        StoreError: No such SAE, pooling or column, or a part is damaged.
        UsageError: Something is there already, an unknown format, or a label where none is taken.
    """
    if kind not in FORMATS:
        raise UsageError(f"unknown format '{kind}'; there are: {', '.join(FORMATS)}")
    if label is not None and kind != "svmlight":
        raise UsageError(f"a label is written to svmlight only; {kind} carries all metadata anyway")
    columns = store.sae(sae)
    source = _Source(store, columns.name, pool, binarize, columns.d_sae, label)
    if kind == "anndata":
        target = local_path(out, "AnnData")
        check_free(out, overwrite=overwrite, mark="zarr.json")
        return Exported(out, None, len(store), columns.d_sae, _write_directory(source, target))
    head, query = split_query(out)
    documents = f"{head}.documents.parquet{query}"
    check_free(out, documents, overwrite=overwrite)
    with whole_file(out) as file:
        nnz = _STREAMED[kind](source, file)
        with whole_file(documents) as beside:
            store.documents().sink_parquet(beside)
    return Exported(out, documents, len(store), columns.d_sae, nnz)


def _write_directory(source: _Source, target: Path) -> int:
    """AnnData, which appears at `target` when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with writing(str(target)):
            nnz = _anndata(source, partial)
        if target.is_dir():
            shutil.rmtree(target)
        partial.replace(target)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
    return nnz


def _npz(source: _Source, file: BinaryIO) -> int:
    """As `scipy.sparse.save_npz` has it: a zip of npy arrays, here each written as it is read."""
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


def _svmlight(source: _Source, file: BinaryIO) -> int:
    """One line a document: the target, then `feature:value`; features count from 1, as LIBSVM's tools want them."""
    targets = _targets(source.store, source.label)
    nnz = 0
    for X in source.blocks():
        for start, stop in pairwise(X.indptr.tolist()):  # a row at a time: numbers as Python has them take 36 bytes
            features, values = X.indices[start:stop].tolist(), X.data[start:stop].tolist()
            entries = [f" {feature + 1}:{value:.9g}" for feature, value in zip(features, values, strict=True)]
            file.write(f"{next(targets)}{''.join(entries)}\n".encode("ascii"))
        nnz += X.nnz
    return nnz


def _targets(store: FeatureStore, label: str | None) -> Iterator[str]:
    """The text of each document's target, in input order."""
    if label is None:
        return repeat("0")
    kinds = dict(store.schema.keep)
    if label not in kinds:
        hint = did_you_mean(label, kinds)
        raise StoreError(
            f"no kept column '{label}' in {shown(store.uri)}; it holds: {', '.join(kinds) or 'none'}{hint}"
        )
    column = exact_columns(store.documents(), [label])[label]
    if column.null_count():
        raise StoreError(f"'{label}' is missing for {column.null_count()} documents; svmlight needs a target for each")
    if kinds[label] == "string":
        rank = {text: str(number) for number, text in enumerate(sorted(set(column.to_list())))}
        return iter([rank[text] for text in column.to_list()])
    return iter([f"{float(value):.17g}" for value in column.to_list()])


def _anndata(source: _Source, path: Path) -> int:
    """AnnData's on-disk format on zarr 3: X as CSR, obs the metadata, var the features."""
    with warnings.catch_warnings():  # both packages announce the defaults of their next versions
        warnings.simplefilter("ignore", UserWarning)
        return _write_anndata(source, path)


def _write_anndata(source: _Source, path: Path) -> int:
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


_STREAMED: dict[str, Callable[[_Source, BinaryIO], int]] = {"npz": _npz, "svmlight": _svmlight}
FORMATS = (*_STREAMED, "anndata")
