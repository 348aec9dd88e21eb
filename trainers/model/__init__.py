"""The model of a run and its tokenizer."""
