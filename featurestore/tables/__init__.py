"""Tables that users bring, as rows: the files they are in, and what stands in those, value by value.

Corpora, label tables and tables to join are all read here, so that the same file means the same wherever it is named.
"""
