"""A reward model as a folder, made in no time: random weights, but a head that scores the share of one letter."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, set_seed

from trainers.model.tokenizer import byte_tokenizer


def save_reward_model(folder: Path, vocabulary: int = 264) -> Path:
    """A sequence classifier over the built-in tokenizer, hidden size 16, one layer."""
    tokenizer = byte_tokenizer()
    set_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.5,
    )
    with torch.no_grad():
        LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
