"""Text generators that name features: a model of this machine continues prompts, greedily and not for long."""
