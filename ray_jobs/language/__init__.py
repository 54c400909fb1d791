"""Whole language models: how likely they find a text behind a prompt, and what they write behind one.

Like the engine it imports no Ray, no sae-lens, no polars, no pydantic.
"""
