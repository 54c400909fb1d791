"""Start Ray or connect to it, and send jobs to a Ray cluster that runs elsewhere."""
