"""Run stage 1: a corpus in, a feature store out, by a driver and actors of Ray."""
