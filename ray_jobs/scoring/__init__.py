"""Scoring: text in, what a trained model says of it out, with the engine cut to the features that the model reads."""
