"""What the ranks of a run agree on."""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist

from trainers.errors import RankZeroFailed

T = TypeVar("T")


def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() and dist.get_backend() != "gloo" else torch.device("cpu")


def distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    return dist.get_world_size() if distributed() else 1


def on_rank_zero(act: Callable[[], T], what: str) -> T | None:
    """Act on rank 0 once every rank is here, and leave together: a failure there ends all ranks.

    Raises:
        Exception: on rank 0, what `act` raised; RankZeroFailed on the others.
    """
    if not distributed():
        return act()
    dist.barrier()
    result, error = None, None
    if dist.get_rank() == 0:
        try:
            result = act()
        except Exception as caught:  # noqa: BLE001 - raised again below, after the other ranks know it
            error = caught
    if total(torch.tensor([1.0 if error else 0.0]))[0]:
        raise error if error is not None else RankZeroFailed(f"rank 0 failed while {what}")
    return result


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum over all ranks."""
    if world_size() == 1:  # on a GPU the sum would be waited for, behind everything that is queued there
        return values
    moved = values.to(device())
    dist.all_reduce(moved)
    return moved.cpu()


def broadcast(value: T) -> T:
    """Rank 0's value on every rank."""
    if not distributed():
        return value
    box: list[T] = [value]
    dist.broadcast_object_list(box, src=0, device=device())
    return box[0]
