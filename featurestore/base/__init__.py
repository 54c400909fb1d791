"""What every package stands on: the YAML of spec files, words, names that were meant, the cache, places where tests end
a process."""
