"""Turn texts into sparse rows: run the model up to its deepest hook, encode with SAEs, and pool.

Imports torch, transformers, tokenizers, safetensors and numpy, and nothing that knows about clusters, stores or SAE
training. `ray_jobs.backbone` gives the activations; `encoder` (SAEs) with `int8_prefilter` (candidates in int8),
`pooling` and `device_pooling`, and `sparse_rows` make rows of them; `extractor` runs all of it, `token_values` the same
for texts that somebody looks at. README.md has the rules for changing any of it.
"""

NUMERICS = 5
"""Raised by a change that may move a bit of what the engine computes: part of every store's fingerprint."""
