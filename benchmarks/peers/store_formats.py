"""Formats for a sparse matrix, each as its own users write and read it; and ours.

`write(X, path)` and `read(path)` with X a scipy CSR matrix (ours takes the rows that X was made of, since it stores ids
and tokens too). Compression is the one that a user would reach for first: what the format's own documentation shows, or
the default where that compresses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from featurestore.format.rows import PartRows


class Format(Protocol):
    """One way to keep a matrix."""

    def write(self, X: Any, path: Path) -> None:
        """Make a file or directory of it."""

    def read(self, path: Path) -> Any:
        """The matrix again."""


def plan_of(rows: PartRows, d_sae: int, name: str, bits: int = 8) -> Any:
    """A store of one part for them."""
    from featurestore.format.schema import SaeColumns, StoreSchema
    from featurestore.format.store_plan import StorePlan

    schema = StoreSchema((), (SaeColumns(name, d_sae, tuple(rows.sparse[name].values)),), (), bits)
    return StorePlan(schema, {}, {}, [(0, len(rows))], len(rows), {})


class Ours:
    """A store of one part, by `write_part` and `FeatureStore.matrix`."""

    def __init__(self, d_sae: int, name: str, bits: int) -> None:
        self.d_sae, self.name, self.bits = d_sae, name, bits

    def write(self, X: PartRows, path: Path) -> None:
        """The whole way of a unit, and the manifest."""
        from featurestore.format.store_plan import create_store
        from featurestore.writing.writer import finish_store, write_part

        plan = plan_of(X, self.d_sae, self.name, self.bits)
        create_store(str(path), plan)
        finish_store(str(path), [write_part(str(path), plan, 0, X)])

    def read(self, path: Path) -> Any:
        """Opened and read, ids included."""
        from featurestore import FeatureStore

        return FeatureStore.open(str(path)).matrix(self.name, "max").X


class Raw:
    """The three arrays as npy files."""

    def write(self, X: Any, path: Path) -> None:
        """uint32, float32 and int64."""
        path.mkdir()
        for name, array in (("indices", X.indices.view(np.uint32)), ("data", X.data), ("indptr", X.indptr)):
            np.save(path / f"{name}.npy", array)

    def read(self, path: Path) -> Any:
        """Into memory, not mapped."""
        from scipy.sparse import csr_matrix

        data, indices, indptr = (np.load(path / f"{name}.npy") for name in ("data", "indices", "indptr"))
        return csr_matrix((data, indices.view(np.int32), indptr), shape=(len(indptr) - 1, _width(indices)))


class ArrowDefaults:
    """Two list columns, written by `pyarrow.parquet.write_table` as it comes: dictionaries, snappy, statistics."""

    def write(self, X: Any, path: Path) -> None:
        """No option given."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        offsets = pa.array(X.indptr.astype(np.int32))
        indices = pa.ListArray.from_arrays(offsets, pa.array(X.indices.view(np.uint32)))
        values = pa.ListArray.from_arrays(offsets, pa.array(X.data))
        pq.write_table(pa.table({"indices": indices, "values": values}), path)

    def read(self, path: Path) -> Any:
        """By column chunks."""
        import pyarrow.parquet as pq
        from scipy.sparse import csr_matrix

        table = pq.read_table(path, use_threads=False)
        indices, values = (column.combine_chunks() for column in table.columns)
        found = indices.flatten().to_numpy()
        arrays = (values.flatten().to_numpy(), found.view(np.int32), indices.offsets.to_numpy())
        return csr_matrix(arrays, shape=(table.num_rows, _width(found)))


class Npz:
    """`scipy.sparse.save_npz`, compressed by default."""

    def write(self, X: Any, path: Path) -> None:
        """zip, deflate 6."""
        from scipy.sparse import save_npz

        with path.open("wb") as file:
            save_npz(file, X)

    def read(self, path: Path) -> Any:
        """`load_npz`."""
        from scipy.sparse import load_npz

        return load_npz(path)


class ZarrCsr:
    """The three arrays in a zarr group, its default compressor."""

    def write(self, X: Any, path: Path) -> None:
        """zarr chooses chunks and compressor."""
        import zarr

        zarr.save_group(path, indices=X.indices.view(np.uint32), data=X.data, indptr=X.indptr)

    def read(self, path: Path) -> Any:
        """Whole arrays."""
        import zarr
        from scipy.sparse import csr_matrix

        group: Any = zarr.open_group(path, mode="r")
        data, indices, indptr = (group[name][:] for name in ("data", "indices", "indptr"))
        return csr_matrix((data, indices.view(np.int32), indptr), shape=(len(indptr) - 1, _width(indices)))


class SvmLight:
    """Text, by scikit-learn."""

    def write(self, X: Any, path: Path) -> None:
        """All targets 0."""
        from sklearn.datasets import dump_svmlight_file

        dump_svmlight_file(X, np.zeros(X.shape[0]), str(path))
        path.with_name(f"{path.name}.width").write_text(str(X.shape[1]), encoding="ascii")

    def read(self, path: Path) -> Any:
        """As float32."""
        from sklearn.datasets import load_svmlight_file

        width = path.with_name(f"{path.name}.width")
        X = load_svmlight_file(str(path), n_features=int(width.read_text(encoding="ascii")), dtype=np.float32)[0]
        width.unlink()
        return X


class H5ad:
    """AnnData in HDF5, with gzip as its documentation shows."""

    def write(self, X: Any, path: Path) -> None:
        """X only; AnnData adds names of rows and columns."""
        import anndata

        anndata.AnnData(X).write_h5ad(path, compression="gzip")

    def read(self, path: Path) -> Any:
        """Into memory."""
        import anndata

        return anndata.read_h5ad(path).X


def _width(indices: np.ndarray) -> int:
    """Columns that the indices need; the formats of plain arrays do not say more."""
    return int(indices.max()) + 1 if len(indices) else 1


PEERS: dict[str, Format] = {
    "raw npy": Raw(),
    "Parquet, pyarrow defaults": ArrowDefaults(),
    "scipy npz": Npz(),
    "zarr CSR": ZarrCsr(),
    "h5ad, gzip": H5ad(),
    "svmlight": SvmLight(),
}
