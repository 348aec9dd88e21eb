"""The order in which prompts are answered."""

import pytest
from transformers import TrainerState

from trainers.errors import DataError
from trainers.reinforcement.prompts import RepeatedPrompts, epoch_of


def sampler(epoch: int = 0, **changes: int) -> RepeatedPrompts:
    return RepeatedPrompts(**{"prompts": 7, "batch": 3, "copies": 2, "repeats": 2, "seed": 1, **changes}, epoch=lambda: epoch)


def test_a_batch_of_prompts_comes_as_often_as_its_answers_are_used_and_each_prompt_in_a_row() -> None:
    order = list(sampler())
    assert len(order) == len(sampler()) == 2 * 3 * 2 * 2
    assert order[:6] == order[6:12]
    assert order[0:6:2] == order[1:6:2]
    assert len({*order}) == 6  # the seventh fills no batch


def test_every_epoch_has_an_order_of_its_own_which_a_new_process_finds_again() -> None:
    assert list(sampler(epoch=1)) != list(sampler(epoch=0))
    assert list(sampler(epoch=1)) == list(sampler(epoch=1))


def test_too_few_prompts_are_refused_with_their_count() -> None:
    with pytest.raises(DataError, match=r"^2 prompts are fewer than the 3 that are answered at once"):
        sampler(prompts=2)


def test_a_resumed_run_is_in_the_epoch_that_it_was_stopped_in() -> None:
    assert [epoch_of(TrainerState(epoch=epoch)) for epoch in (None, 0.5, 1.0, 1.75)] == [0, 0, 1, 1]
