"""What torch's allocator reserves beyond what is allocated."""
