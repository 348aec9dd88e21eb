"""What a run is: typed choices, their defaults in YAML, and the folder a run lives in."""
