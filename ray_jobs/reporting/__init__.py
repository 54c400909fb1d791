"""Tell how a run stands, while it lives and when it ends: on the terminal, in the store and to Prometheus."""
