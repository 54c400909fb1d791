"""Text in, sparse rows out: the model up to its deepest hook, SAE encoders and pooling.

Imports torch, transformers, tokenizers, safetensors and numpy, and nothing that knows about clusters, stores or SAE
training. In the order of the data: `bundle` (what is loaded), `backbone` (the truncated decoder), `tokens` (what is fed
and what counts), `batching`, `encoder` (SAE families), `pooling`, and `extractor`, which puts them in a row.
"""

NUMERICS = 1
"""Raised by a change that may move a bit of what the engine computes: part of every store's fingerprint."""
