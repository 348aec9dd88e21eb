"""What stages that learn from their own answers share: sampling prompts, writing answers, judging them."""
