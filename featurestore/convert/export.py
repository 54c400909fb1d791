"""Export one SAE's features of every document: which formats there are, what stands beside them, what is refused.

Each format is streamed by batches, so memory is a batch of rows, plus a few bytes of each document: for AnnData its
metadata, for svmlight its label. npz and svmlight cannot hold ids: they lie beside the file, in
`{out}.documents.parquet`, with the rest of the documents' metadata. The formats themselves are left to `npz`,
`svmlight` and `anndata_zarr`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from featurestore.base.library_errors import writing
from featurestore.convert import FORMATS
from featurestore.convert.anndata_zarr import write_anndata
from featurestore.convert.npz import write_npz
from featurestore.convert.source import Source
from featurestore.convert.svmlight import write_svmlight
from featurestore.errors import UsageError
from featurestore.reader import FeatureStore
from featurestore.storage.user_outputs import check_free, local_path, whole_file
from featurestore.url_secrets import split_query


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
    source = Source(store, columns.name, pool, binarize, columns.d_sae, label)
    if kind == "anndata":
        target = local_path(out, "AnnData")
        check_free(out, overwrite=overwrite, mark="zarr.json")
        return Exported(out, None, len(store), columns.d_sae, _write_directory(source, target))
    head, query = split_query(out)
    documents = f"{head}.documents.parquet{query}"
    check_free(out, documents, overwrite=overwrite)
    write = write_npz if kind == "npz" else write_svmlight
    with whole_file(out) as file:
        nnz = write(source, file)
        with whole_file(documents) as beside:
            store.documents().sink_parquet(beside)
    return Exported(out, documents, len(store), columns.d_sae, nnz)


def _write_directory(source: Source, target: Path) -> int:
    """AnnData, which appears at `target` when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with writing(str(target)):
            nnz = write_anndata(source, partial)
        if target.is_dir():
            shutil.rmtree(target)
        partial.replace(target)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
    return nnz
