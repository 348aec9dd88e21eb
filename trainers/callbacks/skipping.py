"""training.on_nan=skip: a step whose loss or gradient is NaN or infinite is left out. Weights, optimizer and averages stay as they were before it.

Every step waits for its norm and for the other ranks, which training.on_nan=stop does not. The learning rate goes on with the count of steps.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf import journal
from conf.run_dir import RunDir
from trainers.callbacks.finite import gathered, listed, not_finite
from trainers.ranks.causes import NotANumber
from trainers.ranks.notes import tell
from trainers.ranks.place import Place

IN_A_ROW = 10  # steps: then the weights are at fault, and not the rows


class Skipping(TrainerCallback):
    """`trainer` is given once it is built."""

    def __init__(self, run_dir: RunDir, place: Place) -> None:
        self.run_dir, self.place = run_dir, place
        self.trainer: Trainer | None = None
        self.before: Tensor | None = None  # the trainer's sum of losses at the begin of the step
        self.last: Tensor | None = None  # loss of the last step that was made
        self.in_a_row = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        logged = [entry["loss"] for entry in state.log_history if "loss" in entry]
        self.last = torch.tensor(float(logged[-1])) if logged else None

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert self.trainer is not None, "the trainer is known before it trains"
        self.before = self.trainer._tr_loss.detach().clone()

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        """A collective act.

        Raises:
            NotANumber: at the first step of a run, and after IN_A_ROW steps one after another.
        """
        assert self.trainer is not None
        assert self.before is not None
        loss, norm = self.trainer._tr_loss.detach() - self.before, getattr(self.trainer, "step_norm", None)
        norm = norm.to_local() if hasattr(norm, "to_local") else norm
        own = (not_finite(loss), not_finite(norm), list(getattr(self.trainer, "step_rows", ())))
        every = gathered(own)
        if not any(loss or norm for loss, norm, _ in every):
            self.last, self.in_a_row = loss, 0
            return
        self.in_a_row += 1
        what = in_words(every)
        if self.last is None or self.in_a_row > IN_A_ROW:
            why = "no step before it was good" if self.last is None else f"{IN_A_ROW} steps before it were left out too"
            raise NotANumber(f"At step {state.global_step + 1} {what}, and {why}. Start a new run with a lower optim.lr, or look at these rows.")
        leave_out(model, self.trainer, self.before + self.last.to(self.before))
        if self.place.leads:
            tell(self.run_dir, [f"WARNING: step {state.global_step + 1} was left out: {what}. It counts in the logged mean with the loss before it."])
            journal.record(self.run_dir, journal.Skipped(state.global_step + 1, what))


def leave_out(model: nn.Module, trainer: Any, loss: Tensor) -> None:
    """Optimizers pass over a parameter without a gradient, decay and states included."""
    for parameter in model.parameters():
        parameter.grad = None
    trainer._tr_loss.copy_(loss)
    trainer.step_norm = None


def in_words(every: list[tuple[bool, bool, list[int]]]) -> str:
    """Of each rank: whether its loss and the norm are bad, and its rows."""
    losses = [rank for rank, (loss, _, _) in enumerate(every) if loss]
    at = losses or list(range(len(every)))
    rows = "; ".join(f"rank {rank}: rows {listed(every[rank][2])}" for rank in at if every[rank][2])
    what = "the loss is NaN or infinite" if losses else "the gradient is NaN or infinite"
    return f"{what} ({rows})" if rows else what
