"""Bytes that come and go within one step: activations, the loss, the backward pass."""
