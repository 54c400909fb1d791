"""The bundle of a job, built from a checkpoint and SAEs wherever they are."""
