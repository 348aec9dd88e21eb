"""Has a model answer prompts; rows of token ids in, rows of token ids out."""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from trainers.model.conversation import LIKELIEST, PLAIN, ending
from trainers.ranks.stop import ends_when_asked


def sampling(limit: int, temperature: float, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    return GenerationConfig(max_new_tokens=limit, do_sample=True, temperature=temperature, **ending(tokenizer), **PLAIN)


def greedy(limit: int, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    return GenerationConfig(max_new_tokens=limit, **ending(tokenizer), **LIKELIEST)


@torch.no_grad()
def write_answers(model: PreTrainedModel, prompts: list[list[int]], config: GenerationConfig) -> list[list[int]]:
    """One answer to each prompt, up to and with its end token. A request to stop cuts them short: ask `leave_if_asked` before they are used."""
    tokens, mask = padded(prompts, config.pad_token_id, "left")
    device = model.device
    written = model.generate(
        input_ids=tokens.to(device), attention_mask=mask.to(device), generation_config=config, stopping_criteria=ends_when_asked()
    )
    return [until_end(row, config.eos_token_id) for row in written[:, tokens.shape[1] :].tolist()]


def until_end(tokens: list[int], ends: list[int]) -> list[int]:
    """Up to and with the first of the end tokens."""
    length = next((number for number, token in enumerate(tokens, start=1) if token in ends), len(tokens))
    return tokens[:length]


def padded(rows: list[list[int]], padding: int, side: str) -> tuple[Tensor, Tensor]:
    """(token ids, mask), both (rows, longest); the mask marks which ids are not padding, since an end token may serve as padding."""
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=padding, padding_side=side)
    mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True, padding_side=side)
    return ids, mask
