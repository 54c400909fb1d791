"""Evidence: the tokens of a document with the activations of some features, as plain records and files of a study."""
