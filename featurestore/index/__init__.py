"""Looking at single documents and single features of a store, fast."""
