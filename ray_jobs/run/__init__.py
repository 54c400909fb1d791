"""Run a plan: the driver and its loop, the workers, what follows when something fails, and what is written down."""
