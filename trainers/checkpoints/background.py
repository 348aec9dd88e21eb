"""Checkpoints that are written while training goes on (checkpoint.background).

Rank 0 copies what a checkpoint holds to host memory, and training goes on. A thread writes the files from there, and commits them as ever. There is
one such memory and one such thread, so at most one checkpoint is in flight; whoever needs it committed, or the memory, waits.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from peft import peft_model
from torch import Tensor
from torch.utils._pytree import tree_map
from transformers import modeling_utils
from transformers.trainer import OPTIMIZER_NAME

from trainers.checkpoints.host_memory import HostMemory

BESIDE = 2**24  # bytes: between tensors, and what is small


class Background:
    """`pinned`: what is copied comes from a GPU."""

    def __init__(self, pinned: bool) -> None:
        self.pinned = pinned
        self.thread = ThreadPoolExecutor(1, "saving")
        self.memory: HostMemory | None = None
        self.pending: Future[None] | None = None  # what the thread does, or why it failed
        self.writes: list[Callable[[], None]] = []  # of the checkpoint that is being copied

    @property
    def unprepared(self) -> bool:
        return self.memory is None and self.pending is None

    def prepare(self, size: int) -> None:
        """Have host memory of so many bytes made ready, which takes seconds, before the first checkpoint needs it."""
        self.pending = self.thread.submit(self.make_room, size + BESIDE)

    def make_room(self, size: int) -> None:
        self.memory = HostMemory(size, self.pinned)

    def wait(self) -> None:
        """Until nothing is in flight.

        Raises:
            Exception: what ended the thread's work; once.
        """
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def check(self) -> None:
        """Raises what has ended the thread's work, and waits for nothing."""
        if self.pending is not None and self.pending.done():
            self.wait()

    def close(self) -> None:
        """At the end of a rank, whatever ended it: what is in flight is finished. A failure of it is raised where nothing else is."""
        self.thread.shutdown()
        self.check()

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Within it the weights and the optimizer that libraries save are copied, to be written by `commit`; what is small is written at once."""
        self.wait()
        self.writes = []
        saved = (modeling_utils.safe_save_file, peft_model.safe_save_file, torch.save)
        wanted: list[tuple[Callable[..., None], Any, Any, dict[str, Any]]] = []

        def weights(tensors: Any, path: Any, *positional: Any, **named: Any) -> None:
            wanted.append((saved[0], tensors, path, dict(zip(("metadata",), positional, strict=False)) | named))

        def states(value: Any, path: Any, *positional: Any, **named: Any) -> None:
            if isinstance(path, str | os.PathLike) and os.path.basename(path) == OPTIMIZER_NAME:
                wanted.append((saved[2], value, path, named))
            else:
                saved[2](value, path, *positional, **named)

        modeling_utils.safe_save_file, peft_model.safe_save_file, torch.save = weights, weights, states
        try:
            yield
        finally:
            modeling_utils.safe_save_file, peft_model.safe_save_file, torch.save = saved
        self.copy(wanted)

    def copy(self, wanted: list[tuple[Callable[..., None], Any, Any, dict[str, Any]]]) -> None:
        """Of (function that saves, what, path, its keywords): what, to host memory."""
        size = room_for([value for _, value, _, _ in wanted])
        if self.memory is None or self.memory.size < size:
            self.memory = None  # before the larger one is made
            self.make_room(size)
        assert self.memory is not None
        self.memory.begin()
        self.writes = [write(save, tree_map(self.memory.copied, value), path, named) for save, value, path, named in wanted]
        self.memory.finish()

    def commit(self, complete: Callable[[], None]) -> None:
        """Have the thread write what was copied, and then `complete` it."""
        writes, self.writes = self.writes, []

        def act() -> None:
            for each in writes:
                each()
            complete()

        self.pending = self.thread.submit(act)


def write(save: Callable[..., None], value: Any, path: Any, named: Mapping[str, Any]) -> Callable[[], None]:
    return lambda: save(value, path, **named)


def room_for(values: Any) -> int:
    """Bytes of host memory that copies of all tensors in `values` take."""
    sizes: list[int] = []
    tree_map(lambda leaf: sizes.append(HostMemory.taken(leaf)) if isinstance(leaf, Tensor) else None, values)
    return sum(sizes)
