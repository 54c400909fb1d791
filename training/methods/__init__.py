"""The methods that a study compares: what each sees, its matrix, and what is learnt before the classifier."""
