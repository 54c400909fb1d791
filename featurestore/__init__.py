"""The feature store: one sparse row of SAE features per document, in plain Parquet.

FORMAT.md is the specification, `writer` and `reader` are its two sides, `verify` rechecks every promise it makes.
Names are loaded on first use, so that `import featurestore.errors` costs nothing; no Ray and no torch anywhere here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.aligned import AlignedStores as AlignedStores
    from featurestore.aligned import align as align
    from featurestore.completeness import StoreStatus as StoreStatus
    from featurestore.documents import IdReport as IdReport
    from featurestore.matrices import Matrix as Matrix
    from featurestore.plan import StorePlan as StorePlan
    from featurestore.plan import create_store as create_store
    from featurestore.reader import FeatureStore as FeatureStore
    from featurestore.rows import PartRows as PartRows
    from featurestore.rows import SparseColumn as SparseColumn
    from featurestore.schema import DenseColumn as DenseColumn
    from featurestore.schema import SaeColumns as SaeColumns
    from featurestore.schema import StoreSchema as StoreSchema
    from featurestore.statistics import FeatureStatistics as FeatureStatistics
    from featurestore.verify import VerifyReport as VerifyReport
    from featurestore.writer import PartRecord as PartRecord
    from featurestore.writer import finish_store as finish_store
    from featurestore.writer import write_part as write_part

_HOME = {
    "AlignedStores": "aligned",
    "align": "aligned",
    "FeatureStatistics": "statistics",
    "FeatureStore": "reader",
    "IdReport": "documents",
    "Matrix": "matrices",
    "StoreStatus": "completeness",
    "DenseColumn": "schema",
    "SaeColumns": "schema",
    "StoreSchema": "schema",
    "VerifyReport": "verify",
    "PartRecord": "writer",
    "PartRows": "rows",
    "SparseColumn": "rows",
    "StorePlan": "plan",
    "create_store": "plan",
    "finish_store": "writer",
    "write_part": "writer",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'featurestore' has no attribute {name!r}")
    return getattr(import_module(f"featurestore.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
