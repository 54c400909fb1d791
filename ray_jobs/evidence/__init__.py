"""Compute evidence: run documents that somebody looks at once more, through the bundle that their store names."""
