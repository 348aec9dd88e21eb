"""The arithmetic of PPO, by hand."""

import math

import pytest
import torch

from trainers.reinforcement.objective import advantages_and_returns, moments, policy_loss, scaled, token_rewards, value_loss, whitened

ONE = torch.tensor([[1, 1, 1]])
SHORT = torch.tensor([[1, 1, 0]])


def test_the_score_stands_at_the_last_written_token_and_every_token_pays_for_its_divergence() -> None:
    rewards = token_rewards(torch.tensor([2.0]), torch.tensor([[0.1, 0.2, 9.0]]), SHORT, kl_coef=0.5)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 1.9, 0.0]]))


def test_advantages_are_discounted_sums_of_errors() -> None:
    """Values 1, 2, 3 and rewards 0, 0, 4 with gamma 0.5 and lambda 0.5."""
    rewards, values = torch.tensor([[0.0, 0.0, 4.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    advantages, returns = advantages_and_returns(rewards, values, ONE, gamma=0.5, lam=0.5)
    last = 4 - 3
    middle = (0 + 0.5 * 3 - 2) + 0.25 * last
    first = (0 + 0.5 * 2 - 1) + 0.25 * middle
    torch.testing.assert_close(advantages, torch.tensor([[first, middle, last]]))
    torch.testing.assert_close(returns, torch.tensor([[first + 1, middle + 2, last + 3]]))


def test_behind_the_end_of_an_answer_there_is_nothing_to_come() -> None:
    rewards, values = torch.tensor([[0.0, 4.0, 7.0]]), torch.tensor([[1.0, 2.0, 5.0]])
    advantages, returns = advantages_and_returns(rewards, values, SHORT, gamma=1.0, lam=1.0)
    torch.testing.assert_close(advantages, torch.tensor([[3.0, 2.0, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[4.0, 4.0, 0.0]]))


def test_without_discount_an_advantage_is_the_return_less_the_value() -> None:
    torch.manual_seed(0)
    rewards, values = torch.randn(4, 3), torch.randn(4, 3)
    _, returns = advantages_and_returns(rewards, values, ONE.expand(4, 3), gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns, rewards.flip(1).cumsum(1).flip(1))


def test_moments_leave_padding_out() -> None:
    mean, variance = moments(torch.tensor([[1.0, 3.0, 100.0]]), SHORT)
    assert (mean.item(), variance.item()) == (2.0, 1.0)


def test_whitening_gives_mean_0_and_variance_1_and_scaling_keeps_the_sign() -> None:
    values = torch.tensor([[1.0, 3.0, 100.0]])
    torch.testing.assert_close(whitened(values, SHORT), torch.tensor([[-1.0, 1.0, 0.0]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(scaled(torch.tensor([[2.0, 6.0, 0.0]]), SHORT), torch.tensor([[1.0, 3.0, 0.0]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [(1.0, 2.0, -2.0, False), (1.5, 2.0, -2.4, True), (1.5, -2.0, 3.0, False), (0.5, -2.0, 1.6, True), (0.5, 2.0, -1.0, False)],
)
def test_a_token_gains_nothing_from_moving_further_than_the_range(ratio: float, advantage: float, loss: float, clipped: bool) -> None:
    before = torch.tensor([[-1.0]])
    found, was_clipped = policy_loss(before + math.log(ratio), before, torch.tensor([[advantage]]), cliprange=0.2)
    assert found.item() == pytest.approx(loss, rel=1e-5)
    assert was_clipped.item() is clipped


@pytest.mark.parametrize(("value", "loss"), [(1.1, 0.405), (1.5, 0.32), (0.0, 2.0)])
def test_a_value_is_judged_by_the_worse_of_itself_and_its_clipped_self(value: float, loss: float) -> None:
    """It was 1, should be 2, and counts as moved by 0.2 at most: 1.5 as 1.2, 0 as itself."""
    found = value_loss(torch.tensor([[value]]), torch.tensor([[1.0]]), torch.tensor([[2.0]]), cliprange=0.2)
    assert found.item() == pytest.approx(loss, rel=1e-5)
