"""Measurements: our whole extraction pipeline beside what people do today, and how it scales. See README.md."""
