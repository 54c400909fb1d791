"""The files that a user means: paths, globs, folders and URLs become a fixed list of named files."""
