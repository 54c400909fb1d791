"""Stage 1: a corpus in, a feature store out. Jobs, bundles, the engine, and the Ray driver and actors that run it."""
