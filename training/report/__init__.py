"""A study or a store as one HTML page that opens from a mail; README.md is for whoever changes it."""
