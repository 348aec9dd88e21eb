"""Faster forms of what transformers and PEFT compute, taken by training.kernels=fused: the same parameters, names and mathematics.

Each module says what it saves for the backward pass, so that memory can be counted by hand, and whether that pass is deterministic, and leaves the
plain path where it does not reach. fp8.py alone rounds more than the plain path does, for training.fp8=true.
"""
