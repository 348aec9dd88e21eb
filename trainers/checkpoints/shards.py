"""Checkpoints of FSDP2: each rank writes its shards of weights and states by torch.distributed.checkpoint. Any number of ranks reads them.

Folders are named as accelerate names them. Those of earlier versions of regimen, whose files hold whole tensors, are loaded by accelerate.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
import transformers.trainer
from accelerate.utils import fsdp_utils
from peft import PeftModel
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

MODEL, OPTIMIZER = "model", "optimizer"
FOLDERS = {MODEL: "pytorch_model_fsdp_0", OPTIMIZER: "optimizer_0"}
WHOLE_FILES = {MODEL: "pytorch_model_fsdp.bin", OPTIMIZER: "optimizer.bin"}  # of earlier versions


def save_in_shards() -> None:
    """Have every Trainer of this process save and load in this way what accelerate would gather."""
    transformers.trainer.save_fsdp_model = save_weights
    transformers.trainer.save_fsdp_optimizer = save_states
    transformers.trainer.load_fsdp_model = load_weights
    transformers.trainer.load_fsdp_optimizer = load_states


def save_weights(plugin: Any, accelerator: Any, model: nn.Module, folder: str, **_: Any) -> None:
    write(MODEL, get_model_state_dict(model, options=what_learns(model)), folder)


def save_states(plugin: Any, accelerator: Any, optimizer: Optimizer, model: nn.Module, folder: str, **_: Any) -> None:
    write(OPTIMIZER, get_optimizer_state_dict(model, optimizer), folder)


def load_weights(plugin: Any, accelerator: Any, model: nn.Module, folder: str, **further: Any) -> Any:
    if Path(folder, WHOLE_FILES[MODEL]).is_file():
        return fsdp_utils.load_fsdp_model(plugin, accelerator, model, folder, **further)
    found = read(MODEL, get_model_state_dict(model, options=what_learns(model)), folder)
    return set_model_state_dict(model, found, options=StateDictOptions(strict=False))


def load_states(plugin: Any, accelerator: Any, optimizer: Optimizer, model: nn.Module, folder: str, **further: Any) -> None:
    if Path(folder, WHOLE_FILES[OPTIMIZER]).is_file():
        fsdp_utils.load_fsdp_optimizer(plugin, accelerator, optimizer, model, folder, **further)
    else:
        set_optimizer_state_dict(model, optimizer, read(OPTIMIZER, get_optimizer_state_dict(model, optimizer), folder))


def what_learns(model: nn.Module) -> StateDictOptions:
    """Of an adapter without its base."""
    return StateDictOptions(ignore_frozen_params=isinstance(model, PeftModel))


def write(what: str, state: dict[str, Any], folder: str) -> None:
    with raising_the_cause():
        dcp.save({what: state}, storage_writer=dcp.FileSystemWriter(Path(folder, FOLDERS[what])))


def read(what: str, state: dict[str, Any], folder: str) -> dict[str, Any]:
    """Fill the tensors of `state` with what the checkpoint has of them."""
    filled = {what: state}
    with raising_the_cause():
        dcp.load(filled, storage_reader=dcp.FileSystemReader(Path(folder, FOLDERS[what])))
    return filled[what]


@contextmanager
def raising_the_cause() -> Iterator[None]:
    """torch tells all ranks of a failure of one, as one exception that holds those of the ranks: a full disk is to be known as that."""
    try:
        yield
    except dcp.CheckpointException as failed:
        cause, _ = next(iter(failed.failures.values()))
        raise cause from failed
