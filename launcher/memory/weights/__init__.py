"""Bytes that stay for the whole run: weights, optimizer states, and how ranks split them."""
