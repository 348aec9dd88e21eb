"""The optimizers that a run may learn with."""
