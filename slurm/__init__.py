"""Batch script templates; launcher/batch_script.py renders them."""
