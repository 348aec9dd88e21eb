"""Runs that wait for GPUs of this machine, and the process that starts them, apart from any terminal."""
