"""Whether the disk has room for what is saved next, asked before the first byte of it is written."""

import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from conf.committed import committed, read_manifest
from conf.reserve import RUN_BYTES
from conf.run_dir import RunDir
from conf.schema import Ddp, Fsdp, Run, Zero
from conf.words import size_in_words
from trainers.checkpoints.commit import clear_leftovers
from trainers.ranks.agreement import total
from trainers.ranks.causes import NoRoom

SLACK = 1.02  # headers of files, and what is small: the trainer's state, the tokenizer's configuration


def refuse_full_disk(run_dir: RunDir, need: int, what: str) -> None:
    """On rank 0, where nobody else writes: what a killed attempt left is removed first if there is too little room.

    Raises:
        NoRoom: saying how much is needed and how much is there.
    """
    needed = int(need * SLACK) + RUN_BYTES
    if free(run_dir) >= needed:
        return
    clear_leftovers(run_dir)
    have = free(run_dir)
    if have < needed:
        raise NoRoom(
            f"The disk of {run_dir.path} is full: {what} needs {size_in_words(needed)}, and {size_in_words(have)} is free. "
            f"Free {size_in_words(needed - have)}, then go on with: regimen train resume={run_dir.path}. Committed checkpoints are intact."
        )


def free(run_dir: RunDir) -> int:
    """Bytes that this user may still write."""
    return shutil.disk_usage(run_dir.path).free


def checkpoint_bytes(trainer: Trainer, run: Run, run_dir: RunDir) -> int:
    """As large as the last one; before the first, what weights and optimizer hold. A collective act."""
    weights, states = weight_bytes(trainer), float(state_bytes(trainer.optimizer))
    if isinstance(run.sharding, Fsdp) or (isinstance(run.sharding, Zero) and run.sharding.stage < 3):
        weights *= 2  # as files of the model, and as the engine keeps them
    summed = states if isinstance(run.sharding, Ddp) else float(total(torch.tensor([states], dtype=torch.float64))[0])
    for checkpoint in committed(run_dir):
        try:
            return read_manifest(checkpoint).size
        except (OSError, ValueError):
            continue  # a damaged one: whatever chooses and prunes checkpoints says so
    return int(weights + summed)


def weight_bytes(trainer: Trainer) -> int:
    """Of what is saved, over all ranks: an adapter, or every weight."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    adapter = hasattr(model, "peft_config")
    return sum(whole_bytes(parameter) for parameter in model.parameters() if parameter.requires_grad or not adapter)


def whole_bytes(parameter: nn.Parameter) -> int:
    """Also of a parameter of which this rank holds a part."""
    return int(getattr(parameter, "ds_numel", parameter.numel())) * parameter.element_size()


def state_bytes(optimizer: Any) -> int:
    """On this rank; under ZeRO with the masters in fp32, which are the parameters of the optimizer inside."""
    inner, wrapped = optimizer, False
    while hasattr(inner, "optimizer") and inner.optimizer is not None:
        inner, wrapped = inner.optimizer, wrapped or type(inner).__module__.startswith("deepspeed")
    masters = [parameter for group in inner.param_groups for parameter in group["params"]] if wrapped else []
    return held_bytes([*masters, *(value for state in inner.state.values() for value in values_of(state))])


def values_of(state: Any) -> Iterable[Any]:
    return state.values() if isinstance(state, Mapping) else ()


def held_bytes(values: Iterable[Any]) -> int:
    local = (value.to_local() if hasattr(value, "to_local") else value for value in values if isinstance(value, torch.Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in local)
