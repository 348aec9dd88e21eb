"""What a rank measured of itself, and the pictures of a run."""
