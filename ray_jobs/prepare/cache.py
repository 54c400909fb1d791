"""Where this machine keeps what can be made again: the same place for all packages."""

from __future__ import annotations

from featurestore.storage.cache import cache_path as cache_path
