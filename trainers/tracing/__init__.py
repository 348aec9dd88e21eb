"""One training step of a model on fake tensors: nothing is computed, every allocation is seen."""
