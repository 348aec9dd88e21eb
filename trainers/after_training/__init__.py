"""What the verbs after training share: loading, prompting, scoring and writing a trained model."""
