"""The workers of a run: what a worker does with a unit, how Ray carries workers, and how their failures are told."""
