"""Whether a store keeps every promise, and what runs have left in it."""
