"""The solvers under the linear probes: compiled loops over sparse matrices, and regularisation paths."""
