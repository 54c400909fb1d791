"""Turn texts into sparse rows: run the model up to its deepest hook, encode with SAEs, and pool.

Imports torch, transformers, tokenizers, safetensors and numpy, and nothing that knows about clusters, stores or SAE
training. In the order of the data: `bundle` (what is loaded), `tokens` (what is fed and what counts) with `spelling`
(control tokens are text in texts), `batching`, `backbone` (the truncated decoder) with `gemma` (our own layer) and
`attention`, `families` and `encoder` (SAEs) with `int8_prefilter` (candidates in int8), `pooling` and `device_pooling`,
`sparse_rows`, and `extractor`, which runs all of them. README.md has the rules for changing any of it.
"""

NUMERICS = 4
"""Raised by a change that may move a bit of what the engine computes: part of every store's fingerprint."""
