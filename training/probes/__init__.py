"""The probes: the choice of their hyper-parameter, one fit, and their estimators."""
