"""What DeepSpeed asks for free GPU memory: NVML by the numbers in CUDA_VISIBLE_DEVICES, which may hold UUIDs of GPUs or of MIG instances instead."""

from typing import Any

import torch


def holds_names(visible: str) -> bool:
    """Whether CUDA_VISIBLE_DEVICES, given as `visible`, holds anything else than numbers."""
    words = [word.strip() for word in visible.split(",")]
    return any(word and not word.isdecimal() for word in words)


def ask_torch(accelerator: Any, visible: str) -> None:
    """Let DeepSpeed's accelerator ask CUDA, which knows the GPU by the name that it was given.

    DeepSpeed 0.19.8 reads every word as a number (accelerator/cuda_accelerator.py, _get_nvml_gpu_id) and ends with `invalid literal for int()`
    where ZeRO-1 and 2 lay out the weights (runtime/zero/stage_1_and_2.py); a MIG instance has no number that NVML would know.
    """
    if holds_names(visible):
        accelerator.available_memory = free_memory


def free_memory(device_index: int | None = None) -> int:
    return torch.cuda.mem_get_info(device_index)[0]
