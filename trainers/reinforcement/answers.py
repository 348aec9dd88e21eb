"""Has a model answer prompts; rows of token ids in, rows of token ids out."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

# A model's own generation_config fills what is left open, and Qwen's, for one, would cut and penalise probabilities.
PLAIN: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, "num_beams": 1, "use_cache": True}


def sampling(limit: int, temperature: float, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return GenerationConfig(max_new_tokens=limit, do_sample=True, temperature=temperature, **ends, **PLAIN)


def greedy(limit: int, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return GenerationConfig(max_new_tokens=limit, do_sample=False, **ends, **{**PLAIN, "top_k": None, "top_p": None})


@torch.no_grad()
def write_answers(model: PreTrainedModel, prompts: list[list[int]], config: GenerationConfig) -> list[list[int]]:
    """One answer to each prompt, up to and with its end token."""
    tokens, mask = padded(prompts, int(config.pad_token_id), "left")
    device = model.device
    written = model.generate(input_ids=tokens.to(device), attention_mask=mask.to(device), generation_config=config)
    return [until_end(row, int(config.eos_token_id)) for row in written[:, tokens.shape[1] :].tolist()]


def until_end(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def padded(rows: list[list[int]], padding: int, side: str) -> tuple[Tensor, Tensor]:
    """(token ids, mask), both (rows, longest); the mask tells padding from tokens, since an end token may serve as padding."""
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=padding, padding_side=side)
    mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True, padding_side=side)
    return ids, mask
