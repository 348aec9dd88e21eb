"""How answers and their scores become a rollout."""

from dataclasses import replace

import pytest
import torch

from conf.schema import Ppo
from launcher.composition.compose import compose
from trainers.reinforcement.policy import Answered
from trainers.reinforcement.written import Written, rollout_of

END, PADDING = 9, 0
WRITTEN = Written([[1], [2, 3]], [[5, 6, 7], [8, END]], torch.tensor([2.0, 4.0]), [END], PADDING)
NOTHING = torch.zeros(2, 3)


def stage(**changes: object) -> Ppo:
    composed = compose(["stage=ppo", "model=demo", "data=demo"]).stage
    assert isinstance(composed, Ppo)
    return replace(composed, **{"epochs": 3, "mini_batches": 2, "gamma": 1.0, "lam": 1.0, **changes})


def test_prompts_end_and_answers_begin_in_one_column() -> None:
    ids, mask = WRITTEN.inputs
    assert ids.tolist() == [[PADDING, 1, 5, 6, 7], [2, 3, 8, END, PADDING]]
    assert mask.tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert WRITTEN.mask.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_an_answer_has_ended_if_its_last_token_is_the_end() -> None:
    assert WRITTEN.ended.tolist() == [False, True]


def test_a_return_is_the_score_less_the_price_of_the_tokens_still_to_come() -> None:
    """Log-probabilities 0.5 above the reference's, at 0.1 each: 0.05 a token."""
    policy = Answered(torch.full((2, 3), -1.0), NOTHING, NOTHING)
    rollout = rollout_of(WRITTEN, policy, torch.full((2, 3), -1.5), stage(kl_coef=0.1))
    torch.testing.assert_close(rollout.returns, torch.tensor([[1.85, 1.9, 1.95], [3.9, 3.95, 0.0]]))


def test_an_answer_that_did_not_end_pays_its_penalty() -> None:
    policy = Answered(NOTHING, NOTHING, NOTHING)
    rollout = rollout_of(WRITTEN, policy, NOTHING, stage(missing_eos_penalty=1.5))
    assert rollout.returns[:, 0].tolist() == [0.5, 4.0]


def test_whitened_rewards_are_divided_by_their_deviation() -> None:
    """Rewards of the five tokens: 0, 0, 2, 0, 4; their mean is 1.2, their variance 20/5 - 1.44."""
    rollout = rollout_of(WRITTEN, Answered(NOTHING, NOTHING, NOTHING), NOTHING, stage(whiten_rewards=True))
    assert rollout.returns[:, 0].tolist() == pytest.approx([2 / 2.56**0.5, 4 / 2.56**0.5], rel=1e-5)


def test_each_epoch_reads_every_answer_in_an_order_of_its_own_and_knows_the_tokens_of_its_mini_batches() -> None:
    rollout = rollout_of(WRITTEN, Answered(NOTHING, NOTHING, NOTHING), NOTHING, stage())
    assert rollout.order.shape == (3, 2)
    assert all(sorted(order) == [0, 1] for order in rollout.order.tolist())
    lengths = torch.tensor([3.0, 2.0], dtype=torch.float64)
    assert torch.equal(rollout.tokens, lengths[rollout.order])
