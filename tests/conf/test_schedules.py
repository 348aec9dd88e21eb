"""The learning rates that a plan names are those that transformers' schedules give a Trainer."""

import pytest
import torch
from transformers import TrainingArguments
from transformers.optimization import get_scheduler

from conf.schedules import MIN_SHARE, SCHEDULES, depends_on_total, rate
from conf.schema import Optim

TOTAL = 37


def optim_of(scheduler: str, warmup: float) -> Optim:
    return Optim("adamw", 3e-4, 0.0, 0.9, 0.999, 1e-8, 1.0, scheduler, warmup)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 5.0])
@pytest.mark.parametrize("scheduler", SCHEDULES)
def test_every_step_has_the_rate_of_transformers(scheduler: str, warmup: float, tmp_path) -> None:
    optim = optim_of(scheduler, warmup)
    arguments = TrainingArguments(str(tmp_path), warmup_steps=warmup, use_cpu=True)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=optim.lr)
    further = {"min_lr_rate": MIN_SHARE} if scheduler == "cosine_with_min_lr" else None
    theirs = get_scheduler(scheduler, optimizer, arguments.get_warmup_steps(TOTAL), TOTAL, further)
    for step in range(1, TOTAL + 3):
        assert rate(optim, step, TOTAL) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-15), step
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    ("scheduler", "warmup", "depends"),
    [
        ("cosine", 0.0, True),
        ("constant", 0.1, False),
        ("constant_with_warmup", 5.0, False),
        ("constant_with_warmup", 0.1, True),
        ("inverse_sqrt", 0, False),
    ],
)
def test_what_another_number_of_steps_changes(scheduler: str, warmup: float, depends: bool) -> None:
    optim = optim_of(scheduler, warmup)
    assert depends_on_total(optim) is depends
    assert (rate(optim, 4, 40) != rate(optim, 4, 400)) is depends
