"""A model whose weights are split is written file by file: no rank ever holds the whole of it, neither on its host nor on its GPU.

All ranks gather one tensor after the other, and the first rank keeps what belongs to the file that it writes next.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, Trainer
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from conf.constants import WEIGHTS_FILE

LAYER = re.compile(r"^.*?\.\d+\.")
METADATA = {"format": "pt"}  # transformers refuses files without it

Names = tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One file: which tensors of the model are in it, layer by layer, what they are called in the file, and their bytes."""

    layers: tuple[Names, ...]
    saved_as: Names
    size: int


def write_file_by_file(trainer: Trainer) -> None:
    """Have `trainer` save its model in this way, in checkpoints and at the end."""

    def save(output_dir: str | None = None, _internal_call: bool = False) -> None:
        save_streamed(trainer, Path(output_dir or str(trainer.args.output_dir)))

    trainer.save_model = save


def save_streamed(trainer: Trainer, folder: Path) -> None:
    """Write the model or the adapter, and what belongs to it, as Trainer.save_model does. A collective act."""
    model, leads = trainer.accelerator.unwrap_model(trainer.model), trainer.args.should_save
    with at_rest(trainer):
        if isinstance(model, PeftModel):
            learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
            adapter = gathered(learned, learned, leads)
        else:
            adapter = {}
        if leads:
            trainer._save(str(folder), state_dict=adapter)  # of a whole model its configuration alone
        if not isinstance(model, PeftModel):
            write_parts(model, folder, leads)


@contextmanager
def at_rest(trainer: Trainer) -> Iterator[None]:
    """Within it ZeRO-3 and FSDP2 have parted all weights again: after an evaluation some are still whole."""
    for module in trainer.model_wrapped.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    zero = trainer.model_wrapped.optimizer if trainer.is_deepspeed_enabled else None
    parts = hasattr(zero, "checkpoint_event_prologue")
    if parts:
        zero.checkpoint_event_prologue()
    yield
    if parts:
        zero.checkpoint_event_epilogue()


def write_parts(model: PreTrainedModel, folder: Path, leads: bool) -> None:
    state = state_of(model)
    found = parts_of(model, state, WEIGHTS_FILE)
    names = file_names(len(found))
    for part, name in zip(found, names, strict=True):
        tensors: dict[str, Tensor] = {}
        for layer in part.layers:
            held = gathered(state, layer, leads)
            if leads:
                tensors |= {key: tensor.contiguous() for key, tensor in revert_weight_conversion(model, held).items()}
        if leads:
            save_file(tensors, folder / name, metadata=METADATA)
    if leads and len(found) > 1:
        placed = {key: name for part, name in zip(found, names, strict=True) for key in part.saved_as}
        index = {"metadata": {"total_size": sum(part.size for part in found)}, "weight_map": placed}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2), encoding="utf-8")


def state_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """What is saved of it: parameters and buffers as this rank holds them, tied ones once."""
    state = model.state_dict(keep_vars=True)
    tied = {name for name, source in model.all_tied_weights_keys.items() if state.get(name) is state.get(source)}
    return {name: tensor for name, tensor in state.items() if name not in tied and name not in (model._keys_to_ignore_on_save or ())}


def parts_of(model: PreTrainedModel, state: Mapping[str, Tensor], limit: int) -> list[Part]:
    """Files of at most `limit` bytes, or one layer. A layer stays in one file: what is one tensor here may be several there, or the reverse."""
    parts: list[Part] = []
    for layer in layers_of(state):
        shapes = {name: torch.empty(whole_shape(state[name]), dtype=state[name].dtype, device="meta") for name in layer}
        saved = revert_weight_conversion(model, shapes)
        size = sum(tensor.numel() * tensor.element_size() for tensor in saved.values())
        if parts and parts[-1].size + size <= limit:
            before = parts.pop()
            parts.append(Part((*before.layers, layer), (*before.saved_as, *saved), before.size + size))
        else:
            parts.append(Part((layer,), tuple(saved), size))
    return parts


def layers_of(names: Iterable[str]) -> list[Names]:
    """The tensors of each layer, in the order of the model; those outside of layers each alone."""
    found: dict[str, list[str]] = {}
    for name in names:
        match = LAYER.match(name)
        found.setdefault(match.group() if match else name, []).append(name)
    return [tuple(layer) for layer in found.values()]


def file_names(count: int) -> list[str]:
    """transformers' own."""
    if count == 1:
        return [SAFE_WEIGHTS_NAME]
    stem, dot, suffix = SAFE_WEIGHTS_NAME.rpartition(".")
    return [f"{stem}-{number:05d}-of-{count:05d}{dot}{suffix}" for number in range(1, count + 1)]


def gathered(state: Mapping[str, Tensor], names: Iterable[str], leads: bool) -> dict[str, Tensor]:
    """Whole tensors on the host of the first rank, gathered one after the other; nothing on the others. A collective act."""
    held: dict[str, Tensor] = {}
    for name in names:
        with whole(state[name]) as tensor:
            if leads:
                held[name] = tensor.detach().cpu()
    return held


@contextmanager
def whole(tensor: Tensor) -> Iterator[Tensor]:
    """Of FSDP2 and ZeRO-3 gathered from the parts of all ranks."""
    if isinstance(tensor, DTensor):
        yield tensor.detach().full_tensor()
    elif hasattr(tensor, "ds_tensor"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            yield tensor
    else:
        yield tensor


def whole_shape(tensor: Tensor) -> torch.Size:
    shape: torch.Size = getattr(tensor, "ds_shape", tensor.shape)
    return shape
