"""The documents of a feature and the features of a document, looked up."""
