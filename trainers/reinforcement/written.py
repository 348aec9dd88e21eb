"""What a policy wrote and how it was judged, and how that becomes a rollout."""

from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from conf.schema import Ppo
from trainers.model.answers import padded
from trainers.ranks.agreement import total, world_size
from trainers.reinforcement.objective import advantages_and_returns, scaled, token_rewards, whitened
from trainers.reinforcement.policy import Answered, reference_log_probabilities
from trainers.reinforcement.rollout import Rollout, forward_inputs, shuffled, tokens_of_mini_batches


@dataclass(frozen=True)
class Written:
    prompts: list[list[int]]
    answers: list[list[int]]
    scores: Tensor  # (answers,)
    ends: list[int]  # tokens
    padding: int

    @property
    def ended(self) -> Tensor:
        """(answers,): whether the answer came to its end by itself."""
        return torch.tensor([answer[-1] in self.ends for answer in self.answers], device=self.scores.device)

    @property
    def mask(self) -> Tensor:
        """(answers, tokens)"""
        return padded(self.answers, self.padding, "right")[1]

    @property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """(token ids, mask), both (answers, width): prompts end, and answers begin, in the same column."""
        sides = padded(self.prompts, self.padding, "left"), padded(self.answers, self.padding, "right")
        ids, mask = (torch.cat(parts, dim=1).to(self.scores.device) for parts in zip(*sides, strict=True))
        return ids, mask


def read_back(policy: PreTrainedModel, reference: nn.Module | None, written: Written, temperature: float, size: int) -> tuple[Answered, Tensor]:
    """What the policy computes for its answers, and the reference's log-probabilities; if there is none, those of the policy without its adapter."""
    ids, mask = written.inputs
    length = written.mask.shape[1]
    said, compared = [], []
    for rows in torch.arange(len(ids), device=ids.device).split(size):
        inputs, answers = forward_inputs(ids[rows], mask[rows]), ids[rows, -length:]
        said.append(policy(**inputs, answers=answers, temperature=temperature))
        if reference is not None:
            compared.append(reference_log_probabilities(reference, answers, temperature, inputs))
        else:
            assert isinstance(policy, PeftModel)
            with policy.disable_adapter():
                compared.append(policy(**inputs, answers=answers, temperature=temperature).logprobs)
    return Answered(*(torch.cat(parts) for parts in zip(*said, strict=True))), torch.cat(compared)


def rollout_of(written: Written, policy: Answered, reference: Tensor, stage: Ppo) -> Rollout:
    ids, attention = written.inputs
    mask = written.mask.to(ids.device)
    values = policy.values.float() * mask
    scores = written.scores - (stage.missing_eos_penalty or 0.0) * ~written.ended
    rewards = token_rewards(scores, policy.logprobs - reference, mask, stage.kl_coef)
    if stage.whiten_rewards:
        rewards = scaled(rewards, mask)
    advantages, returns = advantages_and_returns(rewards, values, mask, stage.gamma, stage.lam)
    order = shuffled(len(ids), stage.epochs)
    tokens = total(tokens_of_mini_batches(mask.cpu(), order, stage.mini_batches)) / world_size()
    moved = {"order": order.to(ids.device), "tokens": tokens.to(ids.device)}
    return Rollout(ids, attention, mask, policy.logprobs, values, whitened(advantages, mask), returns, **moved)
