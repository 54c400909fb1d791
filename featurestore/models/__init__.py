"""Trained models as plain files: reading one, whether it fits a store, scoring rows with it (numpy and scipy)."""
