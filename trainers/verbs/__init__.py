"""What `python -m trainers.verbs.<verb> FOLDER` runs."""
