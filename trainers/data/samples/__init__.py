"""Records become samples: messages, pairs, labelled answers, prompts."""
