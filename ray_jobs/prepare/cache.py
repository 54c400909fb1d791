"""Say where this machine keeps what can be made again: bundles, measured rates, decompressed texts."""

from __future__ import annotations

from featurestore.storage.cache import cache_path as cache_path
