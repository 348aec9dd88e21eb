"""Answers of a model to a batch of prompts, and its loss on answers that are given."""

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from conf.request import Sampling
from trainers.data.rows.questions import Question
from trainers.model.conversation import sampling_keywords, stop_tokens


def generate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], sampling: Sampling, seed: int) -> list[list[int]]:
    """The new tokens of each prompt, up to and with what ends the answer."""
    ids, mask = padded_left(prompts, tokenizer.pad_token_id, model.device)
    set_seed(seed)
    with torch.inference_mode():
        whole = model.generate(input_ids=ids, attention_mask=mask, **sampling_keywords(sampling, tokenizer))
    ends = set(stop_tokens(tokenizer))
    return [cut_after(row, ends) for row in whole[:, ids.shape[1] :].tolist()]


def padded_left(rows: list[list[int]], padding: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask [rows, longest]: a model goes on at the right end."""
    width = max(map(len, rows))
    ids = torch.tensor([[padding] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def cut_after(tokens: list[int], ends: set[int]) -> list[int]:
    """Without the padding that follows where others of the batch went on."""
    last = next((index for index, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: last + 1]


def answer_losses(model: PreTrainedModel, padding: int, questions: list[Question]) -> list[float]:
    """The summed loss of each given answer, in nats; 0 where there is none."""
    answered = [question for question in questions if question.answer_ids]
    if not answered:
        return [0.0] * len(questions)
    ids, mask = padded_left([question.prompt_ids + question.answer_ids for question in answered], padding, model.device)
    longest = max(len(question.answer_ids) for question in answered)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():  # of the logits only those before answers: [rows, longest + 1, vocabulary]
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=longest + 1).logits
    sums = iter([answer_loss(logits[row, :-1], ids[row], len(question.answer_ids)) for row, question in enumerate(answered)])
    return [next(sums) if question.answer_ids else 0.0 for question in questions]


def answer_loss(logits: torch.Tensor, ids: torch.Tensor, length: int) -> float:
    return float(cross_entropy(logits[-length:].float(), ids[-length:], reduction="sum"))
