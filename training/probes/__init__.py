"""The probes, a class each: how their hyper-parameter is chosen on inner folds, and how they are fitted."""
