"""Writing a store's files, and finding out beforehand whether that will be possible."""
