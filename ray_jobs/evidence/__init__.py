"""Evidence, computed: the documents that somebody looks at, once more through the bundle that their store names."""
