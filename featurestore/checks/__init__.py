"""How a store stands: what runs left behind, what is done, and whether every promise is kept."""
