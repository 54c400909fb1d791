"""The corpus: one pass over its files, then documents by ranges of rows."""
