"""Tables that users bring, as rows: the files they are in, and what stands in those, value by value.

Corpora, label tables and tables to join are all read here, so that the same file means the same wherever it is named.
"""

READING = 2
"""How ids, kept values, texts and tokens are read from a corpus: part of every store's fingerprint, beside the engine's
numerics. Raised whenever the same file would give another id, value, text or token than before; stores that do not say
which reading they are of are of reading 1."""
