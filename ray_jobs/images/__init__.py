"""Images before a model: decoded in a process of their own and within limits, and what a model feeds around them."""
