"""Build the bundle of a job from a checkpoint and SAEs, wherever they are."""
