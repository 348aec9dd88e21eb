"""What happens at the steps of a training beside the training itself."""
