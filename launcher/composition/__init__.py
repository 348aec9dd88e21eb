"""Overrides and YAML files become one typed Run; a recorded run becomes one again."""
