"""Nothing that is NaN or infinite is committed: losses, gradient norms and weights are looked at before each commit, and no step waits for it.

Steps leave their loss and norm on the device. Before a commit each rank has one number each for losses, norms and its own part of the weights; one
reduction of these three over all ranks decides, so that all ranks end at the same step, with the same cause.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainers.ranks.agreement import distributed, total, world_size
from trainers.ranks.causes import NotANumber

REMEMBERED = 50  # steps
LISTED = 16  # rows of a rank
SHOWN = 3  # norms before the first that is none
WHAT = ("a loss is NaN or infinite", "a norm of the gradient is NaN or infinite", "a weight is NaN, infinite or beyond 1e19")


@dataclass(frozen=True)
class Step:
    number: int
    rows: tuple[int, ...]  # numbers of this rank's rows
    loss: Tensor  # this rank's, summed over the steps since it was logged
    norm: Tensor | float | None  # over all ranks; None: the sharding tells none


class Finite(TrainerCallback):
    """`trainer` is given once it is built. `scaled`: a loss scaler skips steps whose gradient is infinite, as it is meant to."""

    def __init__(self, scaled: bool) -> None:
        self.scaled = scaled
        self.trainer: Trainer | None = None
        self.steps: deque[Step] = deque(maxlen=REMEMBERED)
        self.sums: Tensor | None = None  # loss and norm of every step since the last commit: once NaN or infinite, they stay so

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert self.trainer is not None, "the trainer is known before it trains"
        loss = self.trainer._tr_loss.detach().float().clone()
        norm = getattr(self.trainer, "step_norm", None)
        norm = norm.to_local() if hasattr(norm, "to_local") else norm
        step = Step(state.global_step, tuple(getattr(self.trainer, "step_rows", ())), loss, norm)
        self.steps.append(step)
        both = torch.stack([loss.reshape(()), torch.zeros_like(loss).reshape(()) if self.scaled else as_tensor(norm, loss)])
        self.sums = both if self.sums is None else self.sums + both

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.refuse(state.global_step)  # the final model is saved next

    def refuse(self, step: int) -> None:
        """A collective act.

        Raises:
            NotANumber: on every rank, where one has a loss, a norm or a weight that is NaN or infinite.
        """
        assert self.trainer is not None, "the trainer is known before it trains"
        assert self.trainer.model is not None
        weights = norm_of(local_parts(self.trainer.model.parameters()))
        seen = torch.zeros(2) if self.sums is None else self.sums.cpu()
        bad = (~torch.isfinite(torch.cat([seen.float(), weights.reshape(1).cpu()]))).float()
        self.sums = None
        found = [what for what, ranks in zip(WHAT, total(bad).tolist(), strict=True) if ranks]
        if found:
            known = self.history()
            raise NotANumber(
                f"{sentence(found)} at step {step}, so nothing is saved from this step. {known}{' ' if known else ''}"
                "Start a new run with a lower optim.lr, or with training.precision=bf16_amp instead of fp16_amp. "
                "At the same rate this run would give the same result again."
            )

    def history(self) -> str:
        """Which step was the first, what it was made of on each rank that had a bad loss, and the norms before it. Empty where no step shows it.

        A collective act.
        """
        first = next((step for step in self.steps if not_finite(step.loss) or (not self.scaled and not_finite(step.norm))), None)
        own = None if first is None else (first.number, list(first.rows), not_finite(first.loss))
        every = gathered(own)
        known = [(number, rank, rows, lost) for rank, each in enumerate(every) if each is not None for number, rows, lost in [each]]
        if not known:
            return ""
        number = min(each[0] for each in known)
        at = [each for each in known if each[0] == number]
        worst = [each for each in at if each[3]] or at
        rows = "; ".join(f"rank {rank}: rows {listed(rows)}" for _, rank, rows, _ in worst if rows)
        before = [f"{float(step.norm):.4g}" for step in self.steps if step.number <= number and step.norm is not None][-SHOWN - 1 :]
        made_of = f" It was made of these rows of the prepared data: {rows}." if rows else ""
        norms = f" The norms of the gradient up to it: {', '.join(before)}." if before else ""
        return f"It began in step {number}.{made_of}{norms}"


def listed(rows: Sequence[int]) -> str:
    """The first of them; rows/rank-N.jsonl has all."""
    more = f" and {len(rows) - LISTED} more" if len(rows) > LISTED else ""
    return ", ".join(map(str, rows[:LISTED])) + more


def sentence(found: list[str]) -> str:
    words = " and ".join(found)
    return words[0].upper() + words[1:]


def as_tensor(norm: Tensor | float | None, like: Tensor) -> Tensor:
    if isinstance(norm, Tensor):
        return norm.detach().to(like).reshape(())
    return torch.full_like(like, 0.0 if norm is None else norm).reshape(())


def not_finite(value: Tensor | float | None) -> bool:
    return value is not None and not math.isfinite(float(value))


def local_parts(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """What this rank holds of each parameter that learns: its shard under FSDP2 and ZeRO-3. Others do not change; quantised ones hold no numbers."""
    parts = []
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        held = without_padding(parameter) if hasattr(parameter, "ds_tensor") else parameter
        local = held.to_local() if hasattr(held, "to_local") else held
        if local.is_floating_point() and local.numel() and not local.is_meta:
            parts.append(local.detach())
    return parts


def without_padding(parameter: nn.Parameter) -> Tensor:
    """ZeRO-3 gives each rank a part of one size. What the last parts hold beyond the parameter's end was never written and may be anything."""
    part: Tensor = parameter.ds_tensor
    begin = part.numel() * parameter.ds_zero_partition_rank
    return part[: max(0, parameter.ds_numel - begin)]


def norm_of(parts: list[Tensor]) -> Tensor:
    """In fp32, one number for all parts; infinite too where a weight is finite and its square is not: no run goes on from a weight beyond 1e19."""
    if not parts:
        return torch.zeros(1)
    norms: dict[torch.device, list[Tensor]] = {}
    for part in parts:
        norms.setdefault(part.device, []).append(torch.linalg.vector_norm(part, dtype=torch.float32))
    return torch.stack([torch.stack(each).sum().cpu() for each in norms.values()]).sum()


def gathered(value: Any) -> list[Any]:
    """Of every rank, in order."""
    if not distributed():
        return [value]
    every: list[Any] = [None] * world_size()
    dist.all_gather_object(every, value)
    return every
