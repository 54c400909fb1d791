"""A store made into something else: fewer, larger parts, or the formats of others."""

FORMATS = ("npz", "svmlight", "anndata")  # that features are exported to
