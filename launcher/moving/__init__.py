"""Runs described for another program become runs of regimen."""
