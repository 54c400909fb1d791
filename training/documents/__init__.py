"""The documents of a study: labels, near-duplicates, and how they are split."""
