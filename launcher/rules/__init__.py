"""What cannot work: ranges of values, and pairs of choices that contradict each other."""
