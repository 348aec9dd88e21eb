"""Checkpoints are written aside, then committed by one rename; only committed ones are ever read."""
