"""Read a corpus: first one pass over all of its files, then documents by ranges of rows."""
