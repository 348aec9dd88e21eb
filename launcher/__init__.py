"""Composes a run, judges whether it fits its node, and launches it. Never imports torch."""
