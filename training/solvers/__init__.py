"""The solvers of the linear probes: L2 and L1 logistic regressions, many at once, on one sparse or dense matrix."""
