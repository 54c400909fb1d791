"""Scores with their intervals, and which differences between them are more than chance."""
