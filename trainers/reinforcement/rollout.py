"""Answers that a policy wrote, with all that PPO needs to learn from them: made once, read in several passes, kept by a checkpoint between them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True)
class Rollout:
    """Of one rank; shapes are (answers, width) unless another is given."""

    input_ids: Tensor  # prompts padded at the left, answers at the right
    attention_mask: Tensor
    answer_mask: Tensor  # (answers, tokens): what was written, its end token included
    logprobs: Tensor  # (answers, tokens), by the policy that wrote
    values: Tensor  # (answers, tokens), by its value head
    advantages: Tensor  # (answers, tokens)
    returns: Tensor  # (answers, tokens)
    order: Tensor  # (epochs, answers): who is read when
    tokens: Tensor  # (epochs, mini batches): written tokens of all ranks, over the number of ranks


@dataclass(frozen=True)
class Batch:
    """The rows of one forward pass, and what their summed losses are divided by."""

    input_ids: Tensor
    attention_mask: Tensor
    answer_mask: Tensor
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    tokens: Tensor

    @property
    def answers(self) -> Tensor:
        return self.input_ids[:, -self.answer_mask.shape[1] :]

    @property
    def forward(self) -> dict[str, Tensor]:
        return forward_inputs(self.input_ids, self.attention_mask)


def forward_inputs(ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Padding at the left has no positions of its own."""
    return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


def batch_of(rollout: Rollout, number: int, size: int) -> Batch:
    """The rows of forward pass `number` of those that read the rollout, `size` each."""
    answers = rollout.order.shape[1]
    epoch, place = divmod(number, answers // size)
    rows = rollout.order[epoch, place * size : (place + 1) * size]
    mini_batch = place * size * rollout.tokens.shape[1] // answers
    kept = ("input_ids", "attention_mask", "answer_mask", "logprobs", "values", "advantages", "returns")
    return Batch(**{name: vars(rollout)[name][rows] for name in kept}, tokens=rollout.tokens[epoch, mini_batch])


def tokens_of_mini_batches(answer_mask: Tensor, order: Tensor, mini_batches: int) -> Tensor:
    """(epochs, mini batches): written tokens of this rank."""
    return answer_mask.sum(1)[order].reshape(len(order), mini_batches, -1).sum(-1).double()


def shuffled(answers: int, epochs: int) -> Tensor:
    return torch.stack([torch.randperm(answers) for _ in range(epochs)])


def save_rollout(rollout: Rollout, file: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in vars(rollout).items()}, file)


def load_rollout(file: Path, device: torch.device) -> Rollout:
    return Rollout(**{name: tensor.to(device) for name, tensor in load_file(file).items()})
