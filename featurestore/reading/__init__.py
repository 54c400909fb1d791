"""From an open store to matrices, metadata and statistics."""
