"""A run: the driver and its loop, workers, what failed and what follows from it, and what is written down meanwhile."""
