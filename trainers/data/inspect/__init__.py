"""What `data validate` shows: counts, lengths, a sample with its mask."""
