"""Name features with a text generator of this machine, which continues prompts, greedily and not for long."""
