"""A prepared bundle and its decoder: texts become windows of tokens, and those the residual stream after each hook."""
