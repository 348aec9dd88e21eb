"""Executes a run inside its ranks. Never imports the launcher."""
