"""What the verbs after training share: loading, asking, scoring and writing a trained model."""
