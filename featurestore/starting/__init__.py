"""A first job and study for somebody's table: guess what its columns are, say why, write both files with comments."""
