"""Writing a store, and whether one can be written."""
