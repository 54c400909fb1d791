"""From the parts of a store to frames and matrices."""
