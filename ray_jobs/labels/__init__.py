"""Have a model answer prompts: one table with what it chose, how sure it was, and whether it was right."""
