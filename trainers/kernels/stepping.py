"""Steps that do not wait for the GPU: what is logged is fetched a step late, and batches are copied ahead.

What transformers' loop reads from the GPU in a step (trainer.py 5.23): the loss and the gradient's norm when it logs, each by .item() behind
everything that was queued, and with them a count of operations over all ranks; a batch, copied from pinned memory but waited for; all positions of a
row, to see whether samples share it (trainers/kernels/attention.py spares that). Its count of learned tokens, its clipping and the fused optimizers
wait for nothing.

On a small model the host is what a step waits for. In every step that loop walks over all modules to say that they train, over all parameters to drop
their gradients, again to clip them, and again to count operations, which nothing here reads: here over those that learn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor
from transformers import Trainer
from transformers.trainer_pt_utils import nested_gather

PLAIN_RANKS = (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)  # each holds all weights, in DDP's wrapper


@dataclass(frozen=True)
class Entry:
    """What is to be logged of one step; `values`: the summed loss of `steps` steps and the gradient's norm, on their way from the GPU."""

    step: int
    epoch: float
    steps: int
    learning_rate: float
    values: Tensor
    arrived: torch.cuda.Event | None


def keep_going(trainer: Trainer) -> None:
    """Have `trainer` queue one step while the GPU computes the one before. To be called once it is built."""
    queue_less(trainer)
    trainer.floating_point_ops = lambda inputs: 0
    late = LateLog(trainer)
    trainer._maybe_log_save_evaluate = late.log_save_evaluate
    finalize = trainer._finalize_training

    def finalize_logged(*arguments: Any, **keywords: Any) -> Any:
        late.write_all()
        return finalize(*arguments, **keywords)

    trainer._finalize_training = finalize_logged


def queue_less(trainer: Trainer) -> None:
    """What every step does with less work of the host; logs stay where they are."""
    trainer.accelerator.dataloader_config.non_blocking = True
    if trainer.args.world_size == 1 or trainer.accelerator.distributed_type in PLAIN_RANKS:
        walk_over_what_learns(trainer)
    go_back_in_this_thread(trainer)


def walk_over_what_learns(trainer: Trainer) -> None:
    """Of a model that no wrapper surrounds, or DDP's alone, which asks the model inside to train and leaves its gradients whole on every rank."""
    model: torch.nn.Module = trainer.model
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    train, walked = model.train, False

    def train_once(mode: bool = True) -> torch.nn.Module:
        """The first walk is made whatever `model` itself says: PEFT's wrapper is new and in training, and the model inside is as it was loaded."""
        nonlocal walked
        if mode and walked and model.training:
            return model
        walked = mode
        return train(mode)

    def drop_gradients(set_to_none: bool = True) -> None:
        for parameter in learning:
            parameter.grad = None

    model.train, model.zero_grad = train_once, drop_gradients
    whole = trainer.accelerator.distributed_type in (DistributedType.NO, *PLAIN_RANKS) and trainer.accelerator.scaler is None
    clip = clip_together if whole and one_kind(learning) else trainer.accelerator.clip_grad_norm_
    trainer._clip_grad_norm = lambda _: clip(learning, trainer.args.max_grad_norm)


def one_kind(weights: Sequence[Tensor]) -> bool:
    """Of one dtype, on one device."""
    return len({(weight.dtype, weight.device) for weight in weights}) == 1


def clip_together(weights: Sequence[Tensor], largest: float) -> Tensor:
    """The norm of all gradients, before they are scaled down to `largest` if it is greater: torch.nn.utils.clip_grad_norm_ for weights of one kind,
    without sorting them by kind twice and without asking each whether it is a part of one."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm


def go_back_in_this_thread(trainer: Trainer) -> None:
    """torch's own thread for a GPU's backward pass has a cuBLAS handle and a workspace (32 MiB on Hopper) of its own, while this one waits for it.

    50 steps of a 1B model, from the 25th on, with rows of mixed lengths on an H200: 97 ms each in this thread and 108 in its own, where the first 20
    were slower and the last 20 were not.
    """
    backward = trainer.accelerator.backward

    def single_threaded(*arguments: Any, **keywords: Any) -> None:
        with torch.autograd.set_multithreading_enabled(False):
            backward(*arguments, **keywords)

    trainer.accelerator.backward = single_threaded


class LateLog:
    """Logs each step when the next one has been queued; before an evaluation, a checkpoint or the end, at once: nothing is saved of a step unseen."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.save_evaluate: Callable[..., None] = trainer._maybe_log_save_evaluate
        self.waiting: list[Entry] = []

    def log_save_evaluate(
        self,
        tr_loss: Tensor,
        grad_norm: Tensor | float | None,
        model: torch.nn.Module,
        trial: Any,
        epoch: float,
        ignore_keys_for_eval: list[str] | None,
        start_time: float,
        learning_rate: float | None = None,
    ) -> None:
        """In place of Trainer._maybe_log_save_evaluate."""
        trainer, control, state = self.trainer, self.trainer.control, self.trainer.state
        if control.should_log and state.global_step > trainer._globalstep_last_logged:
            rate = trainer._get_learning_rate() if learning_rate is None else learning_rate
            self.waiting.append(self.entry(tr_loss, grad_norm, rate))
            tr_loss.zero_()
            trainer._globalstep_last_logged = state.global_step
        control.should_log = False
        self.write(self.take(before=state.global_step))
        if control.should_evaluate or control.should_save or control.should_epoch_stop or control.should_training_stop:
            self.write_all()
        self.save_evaluate(tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, start_time, learning_rate=learning_rate)

    def entry(self, loss: Tensor, norm: Tensor | float | None, learning_rate: float) -> Entry:
        trainer = self.trainer
        mean = nested_gather(loss.detach().clone(), trainer.args.parallel_mode).mean()
        norms = [] if norm is None else [norm.to(mean) if isinstance(norm, Tensor) else torch.full_like(mean, norm)]
        values, arrived = on_its_way(torch.stack([mean, *norms]))
        steps = trainer.state.global_step - trainer._globalstep_last_logged
        return Entry(trainer.state.global_step, trainer.state.epoch, steps, learning_rate, values, arrived)

    def take(self, before: int) -> list[Entry]:
        taken = [entry for entry in self.waiting if entry.step < before]
        self.waiting = [entry for entry in self.waiting if entry.step >= before]
        return taken

    def write_all(self) -> None:
        self.write(self.take(before=self.trainer.state.global_step + 1))

    def write(self, entries: list[Entry]) -> None:
        for entry in entries:
            self.write_one(entry)

    def write_one(self, entry: Entry) -> None:
        """Callbacks see the step that the values belong to."""
        trainer, state = self.trainer, self.trainer.state
        if entry.arrived is not None:
            entry.arrived.synchronize()
        loss, *norm = entry.values.tolist()
        trainer._total_loss_scalar += loss
        logs = {"loss": loss / entry.steps, **({"grad_norm": norm[0]} if norm else {}), "learning_rate": entry.learning_rate}
        now = state.global_step, state.epoch
        state.global_step, state.epoch = entry.step, entry.epoch
        try:
            trainer.log(logs)
        finally:
            state.global_step, state.epoch = now


def on_its_way(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy in host memory, and the event after which it is there; None: it is there already."""
    if not values.is_cuda:
        return values.clone(), None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return host, arrived
