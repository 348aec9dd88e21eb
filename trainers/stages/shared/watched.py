"""What a run needs to know of each step and transformers' Trainer keeps to itself: the rows of its batches and the norm of its gradient."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from trainers.checkpoints.background import Background
from trainers.data.rows.numbers import KeepingNumbers, taken_numbers


class Watched(Trainer):
    """Trainer.train() does not get them: the two are kept as they pass, and the norm stays on the device, where nobody waits for it."""

    step_rows: Sequence[int] = ()  # numbers of the rows of the step that is made
    step_norm: torch.Tensor | float | None = None  # of its gradient, over all ranks, before clipping

    background: Background | None = None  # writes its checkpoints while it trains

    keeps_rows = False  # whether batches of the training carry the numbers of their rows; those of an evaluation never do

    def _get_dataloader(self, *positional: Any, is_training: bool = False, **named: Any) -> Any:
        collate = self.data_collator
        if is_training and self.keeps_rows:
            self.data_collator = KeepingNumbers(collate)
        try:
            return super()._get_dataloader(*positional, is_training=is_training, **named)
        finally:
            self.data_collator = collate

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        batches, counted = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.step_rows = taken_numbers(batches)
        return batches, counted

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """DeepSpeed's as it is: transformers would read its value."""
        self.step_norm = grad_norm if self.is_deepspeed_enabled and grad_norm is not None else super()._get_grad_norm(model, grad_norm)
        return self.step_norm

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self.background.taking() if self.background is not None and self.args.should_save else nullcontext():
            super()._save_checkpoint(model, trial)
