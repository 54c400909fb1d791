"""What a study leaves: files, the report, the explanation, and models."""
