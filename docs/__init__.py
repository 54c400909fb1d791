"""The pages, and in `tooling` what makes those that are made from the code."""
