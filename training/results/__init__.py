"""From answers to statements: rows for each method, means with intervals, comparisons, regimes."""
