"""What a study says: rows for each method, comparisons and summaries."""
