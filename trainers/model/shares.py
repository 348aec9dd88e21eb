"""Each rank of FSDP2 reads from the safetensors files only what it keeps of them.

The model is built without weights, and split as soon as there is a trainer that says how; then every rank reads its slice of each tensor, in the
dtype in which it is kept, straight to where it trains. No rank ever holds the whole model, neither on its host nor on its GPU.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from accelerate import Accelerator
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from safetensors import safe_open
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, Trainer
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils.loading_report import LoadStateDictInfo

AWAITED = "_awaited_files"  # attribute of a model that was built without its weights


@dataclass(frozen=True)
class Awaited:
    files: tuple[str, ...]
    config: LoadStateDictConfig


@contextmanager
def without_weights() -> Iterator[None]:
    """Within it transformers' from_pretrained builds a model on the meta device and leaves its files for `read_shares`."""
    load, finish = PreTrainedModel._load_pretrained_model, PreTrainedModel._finalize_model_loading

    def note(model: PreTrainedModel, state_dict: Any, files: list[str], config: LoadStateDictConfig, *_: Any, **__: Any) -> tuple[None, None]:
        setattr(model, AWAITED, Awaited(tuple(files), config))
        return None, None

    PreTrainedModel._load_pretrained_model = staticmethod(note)
    PreTrainedModel._finalize_model_loading = staticmethod(lambda model, config, found: found)
    try:
        yield
    finally:
        PreTrainedModel._load_pretrained_model, PreTrainedModel._finalize_model_loading = staticmethod(load), staticmethod(finish)


def read_shares(trainer: Trainer) -> None:
    """Split the trainer's model over the ranks and read this rank's share of it; nothing where the model has its weights. A collective act.

    Raises:
        ValueError: naming a weight that the files lack, or hold in another size.
    """
    model = trainer.model
    awaited: Awaited | None = vars(model).pop(AWAITED, None)
    if awaited is None:
        return
    accelerator = trainer.accelerator
    model.tie_weights()
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    fsdp2_prepare_model(accelerator, model)
    config = replace(awaited.config, device_map={"": accelerator.device})
    with ExitStack() as opened:
        files = [opened.enter_context(safe_open(file, framework="pt")) for file in awaited.files]
        slices = {name: file.get_slice(name) for file in files for name in file.keys()}  # noqa: SIM118 - safe_open gives no iterator
        found, _ = convert_and_load_state_dict_in_model(model, slices, config)
    found = PreTrainedModel._finalize_model_loading(model, config, found)
    refuse_incomplete(model, found)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in learning)
    for buffer in model.buffers():
        buffer.data = buffer.data.to(accelerator.device)
    prepare_with_its_own_weights(accelerator)


def refuse_incomplete(model: PreTrainedModel, found: LoadStateDictInfo) -> None:
    """Each rank would draw its own numbers for what the files lack."""
    lacking = sorted(found.missing_keys - {name for name, _ in model.named_buffers()} - model.all_tied_weights_keys.keys())
    other = sorted(name for name, *_ in found.mismatched_keys)
    if lacking or other:
        what = f"lack {lacking[0]}" if lacking else f"hold {other[0]} in another size"
        raise ValueError(
            f"model.path={model.name_or_path}: the files {what}; {len(lacking) + len(other)} weights in all are missing or of another size. "
            f"Give the files of a whole model of this configuration."
        )


def prepare_with_its_own_weights(accelerator: Accelerator) -> None:
    """Have accelerate leave the weights in the optimizer as they are: they are split already.

    It would find each of them again by its address (accelerate/accelerator.py, _prepare_fsdp2), and shares without an element have none.
    """
    prepare = accelerator.prepare

    def with_weights_kept(*objects: Any, **keywords: Any) -> Any:
        optimizers = [one for one in objects if isinstance(one, Optimizer)] if any(isinstance(one, nn.Module) for one in objects) else []
        held = [[group["params"] for group in optimizer.param_groups] for optimizer in optimizers]
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["params"] = []
        prepared = prepare(*objects, **keywords)
        for optimizer, groups in zip(optimizers, held, strict=True):
            for group, weights in zip(optimizer.param_groups, groups, strict=True):  # accelerate has made new groups
                group["params"] = weights
        return prepared

    accelerator.prepare = with_weights_kept
