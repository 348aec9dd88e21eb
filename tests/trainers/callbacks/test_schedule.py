"""The rate of a run that goes on, and of one that went back for a NaN, on a schedule that falls by a tenth a step for two groups."""

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from trainers.callbacks.schedule import Schedule


def scheduled() -> torch.optim.lr_scheduler.LambdaLR:
    first, second = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": [second], "lr": 0.4}])
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 10)


def begin(scheduler: torch.optim.lr_scheduler.LambdaLR, step: int, roll_backs: int) -> list[float]:
    """The rates of the next step of a run that goes on after `step`."""
    scheduler.last_epoch = step
    arguments = TrainingArguments(output_dir="unused", use_cpu=True)
    Schedule(lambda _: roll_backs).on_train_begin(arguments, TrainerState(global_step=step), TrainerControl(), lr_scheduler=scheduler)
    return [group["lr"] for group in scheduler.optimizer.param_groups]


@pytest.mark.parametrize(
    ("step", "roll_backs", "rates"),
    [(0, 0, [0.1, 0.4]), (5, 0, [0.05, 0.2]), (5, 1, [0.025, 0.1]), (5, 2, [0.0125, 0.05]), (0, 1, [0.05, 0.2])],
)
def test_each_time_halves_the_whole_schedule(step: int, roll_backs: int, rates: list[float]) -> None:
    assert begin(scheduled(), step, roll_backs) == pytest.approx(rates)


def test_a_checkpoint_keeps_the_halved_schedule() -> None:
    before, after = scheduled(), scheduled()
    begin(before, 5, 1)
    after.load_state_dict(before.state_dict())
    assert begin(after, 6, 0) == pytest.approx([0.02, 0.08])
    assert begin(after, 6, 1) == pytest.approx([0.01, 0.04])
