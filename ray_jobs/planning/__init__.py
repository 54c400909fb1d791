"""What a job will do, and what it will cost: units, identity, estimate, and what should be thought about first."""
