"""Score texts with a trained model, with the engine cut to the features that the model reads."""
