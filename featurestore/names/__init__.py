"""What features mean in words: one table of names for each SAE, imported, generated, or keywords from evidence."""
