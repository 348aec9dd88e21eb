"""Whether a run may start on its node, and what would fit instead."""
