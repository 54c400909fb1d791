"""The files of a store as FORMAT.md specifies them: plan, columns, rows, and the part file."""
