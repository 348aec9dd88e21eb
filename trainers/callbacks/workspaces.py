"""cuBLAS' workspaces lie below everything that a step makes and frees."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Workspaces(TrainerCallback):
    """A thread's first product makes its workspace, which stays (ATen/cuda/CublasHandlePool.cpp; 32 MiB on Hopper).

    Left to itself, that happens in the midst of the first step's logits, whose place is then cut in two for the rest of the run: unless the first
    batch was much shorter, later logits find no room there and lie beside it. Made here, right before the first step, it lies beside the weights,
    and what torch reserves no longer depends on the order of short and long batches (launcher/memory/allocator/replay.py).
    """

    def __init__(self, both_threads: bool) -> None:
        self.both_threads = both_threads  # whether torch's own thread runs the backward pass (trainers/kernels/stepping.py)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if args.device.type == "cuda":
            multiply_once(args.device, self.both_threads)


@torch.enable_grad()
def multiply_once(device: torch.device, both_threads: bool) -> None:
    """One small product in this thread, and one in the thread of the device's backward pass; no random number is drawn."""
    one = torch.ones(16, 16, dtype=torch.float32, device=device, requires_grad=True)
    product = one @ one
    if both_threads:
        product.sum().backward()
