"""The documents of a study: which take part, their labels and near-duplicates, and how they are split."""
