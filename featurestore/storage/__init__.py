"""Files wherever they are: local paths, object stores and URLs, and making a file appear whole or not at all."""
