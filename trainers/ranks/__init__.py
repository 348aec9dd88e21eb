"""Where a rank stands, what ranks agree on, and why one ended."""
