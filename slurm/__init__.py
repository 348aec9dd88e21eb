"""Batch script templates; launcher/launch/batch_script.py renders them."""
