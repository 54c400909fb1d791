"""Keep one sparse row of SAE features per document in plain Parquet, and read it back as matrices.

FORMAT.md specifies the files, `writing` and `reader` are their two sides, `checks.verify` rechecks every promise.
Names are loaded on first use, so `import featurestore.errors` costs nothing. No Ray and no torch anywhere here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.aligned import AlignedStores as AlignedStores
    from featurestore.aligned import align as align
    from featurestore.checks.verify import VerifyReport as VerifyReport
    from featurestore.format.rows import PartRows as PartRows
    from featurestore.format.rows import SparseColumn as SparseColumn
    from featurestore.format.schema import DenseColumn as DenseColumn
    from featurestore.format.schema import SaeColumns as SaeColumns
    from featurestore.format.schema import StoreSchema as StoreSchema
    from featurestore.format.store_plan import StorePlan as StorePlan
    from featurestore.format.store_plan import create_store as create_store
    from featurestore.reader import FeatureStore as FeatureStore
    from featurestore.reading.completeness import StoreStatus as StoreStatus
    from featurestore.reading.documents import IdReport as IdReport
    from featurestore.reading.matrices import Matrix as Matrix
    from featurestore.reading.statistics import FeatureStatistics as FeatureStatistics
    from featurestore.writing.writer import PartRecord as PartRecord
    from featurestore.writing.writer import finish_store as finish_store
    from featurestore.writing.writer import write_part as write_part

_HOME = {
    "AlignedStores": "aligned",
    "align": "aligned",
    "FeatureStatistics": "reading.statistics",
    "FeatureStore": "reader",
    "IdReport": "reading.documents",
    "Matrix": "reading.matrices",
    "StoreStatus": "reading.completeness",
    "DenseColumn": "format.schema",
    "SaeColumns": "format.schema",
    "StoreSchema": "format.schema",
    "VerifyReport": "checks.verify",
    "PartRecord": "writing.writer",
    "PartRows": "format.rows",
    "SparseColumn": "format.rows",
    "StorePlan": "format.store_plan",
    "create_store": "format.store_plan",
    "finish_store": "writing.writer",
    "write_part": "writing.writer",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'featurestore' has no attribute {name!r}")
    return getattr(import_module(f"featurestore.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
