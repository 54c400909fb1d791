"""Make the reference pages from the code, cut pages into their code blocks, and fit the pages into a site.

`python -m docs.tooling` writes docs/reference and the JSON Schemas; a test fails where they are stale.
"""
