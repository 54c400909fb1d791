"""How a run stands, told while it lives and when it ends: the live line, the records in the store, and numbers for
Prometheus."""
