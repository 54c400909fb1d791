"""A Ray to work on, and jobs that are sent to somebody else's."""
