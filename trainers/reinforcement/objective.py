"""The arithmetic of PPO (arXiv:1707.06347) on answers: rewards of tokens, advantages, clipped losses. Tensors are (answers, tokens)."""

import torch
from torch import Tensor

from trainers.ranks.agreement import total

SMALLEST = 1e-8  # added to a variance before its root


def token_rewards(scores: Tensor, divergence: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """The score (answers,) at the last token of each answer; at every token the price of its divergence from the reference."""
    rewards = -kl_coef * divergence * mask
    last = mask.sum(1).long() - 1
    rewards[torch.arange(len(rewards), device=rewards.device), last] += scores
    return rewards


def advantages_and_returns(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates (arXiv:1506.02438); behind the last token there is nothing to come."""
    advantages = torch.zeros_like(rewards)
    later_advantage, later_value = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for token in reversed(range(rewards.shape[1])):
        error = rewards[:, token] + gamma * later_value - values[:, token]
        later_advantage = (error + gamma * lam * later_advantage) * mask[:, token]
        later_value = values[:, token] * mask[:, token]
        advantages[:, token] = later_advantage
    return advantages, (advantages + values) * mask


def scaled(values: Tensor, mask: Tensor) -> Tensor:
    """Divided by the deviation over all tokens of all ranks."""
    return values * torch.rsqrt(moments(values, mask)[1] + SMALLEST).to(values)


def whitened(values: Tensor, mask: Tensor) -> Tensor:
    """Shifted and divided to mean 0 and variance 1 over all tokens of all ranks."""
    mean, variance = moments(values, mask)
    return (values - mean.to(values)) * torch.rsqrt(variance + SMALLEST).to(values) * mask


def moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, variance) over all tokens of all ranks."""
    exact = values.double() * mask
    count, first, second = total(torch.stack([mask.double().sum(), exact.sum(), exact.square().sum()]).cpu())
    mean = first / count
    return mean, (second / count - mean.square()).clamp(min=0)


def policy_loss(logprobs: Tensor, before: Tensor, advantages: Tensor, cliprange: float) -> tuple[Tensor, Tensor]:
    """(loss, whether it is clipped) of each token."""
    ratio = torch.exp(logprobs - before)
    free, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    return torch.max(free, clipped), clipped > free


def value_loss(values: Tensor, before: Tensor, returns: Tensor, cliprange: float) -> Tensor:
    near = torch.clamp(values, before - cliprange, before + cliprange)
    return 0.5 * torch.max((values - returns).square(), (near - returns).square())
