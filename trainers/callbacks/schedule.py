"""The learning rate of a run that goes on is that of its own schedule, from the first step after the checkpoint on."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

BACK = 0.5  # of the rate: what a run that went back for a NaN goes on with


class Schedule(TrainerCallback):
    """The optimizer's saved groups hold the rate of the next step by the schedule under which they were saved.

    That is another one where the run was made longer or shorter: the last of 100 steps leaves 0 for the 101st, where 200 steps have half of the peak.
    `roll_backs` says how often the run went back for a NaN since the checkpoint of a step was saved; each time halves the whole schedule.
    """

    def __init__(self, roll_backs: Callable[[int], int] = lambda step: 0) -> None:
        self.roll_backs = roll_backs

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, lr_scheduler: Any = None, **_: Any) -> None:
        share = BACK ** self.roll_backs(state.global_step)
        if state.global_step or share != 1:
            lr_scheduler.base_lrs = [base * share for base in lr_scheduler.base_lrs]  # saved with the next checkpoint
            align(lr_scheduler)


def align(scheduler: torch.optim.lr_scheduler.LambdaLR) -> None:
    """Set the rate of every group to that of the step at which the schedule stands; all schedules that a run may name are LambdaLR."""
    rates = [base * factor(scheduler.last_epoch) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates  # what is logged with the next step
