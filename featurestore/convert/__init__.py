"""A store made into something else: fewer, larger parts, or the formats of others."""
