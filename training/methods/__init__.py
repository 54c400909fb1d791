"""The methods that a study compares, and the matrix of each."""
