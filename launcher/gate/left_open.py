"""What a described run leaves to be chosen on its node (launcher/gate/fit.py)."""

from dataclasses import dataclass

from conf.schema import Composed, Fsdp
from conf.stages import bound_by, stage_row
from launcher.errors import ConfigError


@dataclass(frozen=True)
class Open:
    """What is left to choose."""

    micro_batch: bool = True
    checkpointing: bool = True
    sharding: bool = True
    kernels: bool = False
    loss: bool = False
    attention: bool = False  # follows the kernels
    gathered: bool = False  # whether FSDP2 frees what it gathered


BATCH_AND_SHARDING = Open()
LAYERS = Open(micro_batch=False, sharding=False)


def left_open(composed: Composed, gpus: int) -> Open | None:
    """None where nothing is chosen: training.fit=off; without it, on CPUs, and where everything is stated. With training.gradient_checkpointing=auto
    the layers are chosen everywhere. Stages that write their answers choose these alone: their answers are drawn in micro-batches, and there are no
    fused kernels for them.

    What is stated stays, and so does a micro-batch on which the loss depends. Without training.effective_batch a step has one micro-batch
    on each rank, and nothing divides it.

    Raises:
        ConfigError: where the batch that training.fit=auto is to keep is not stated, or its division is.
    """
    training, asked = composed.training, composed.training.fit == "auto"
    if asked:
        refuse_no_batch(composed)
    implied = training.fit is None and gpus > 0
    writes = stage_row(composed.stage.name).learns == "own answers"
    free = training.effective_batch is not None and training.accumulation is None and not bound_by(composed.stage)
    found = Open(
        micro_batch=training.micro_batch is None and (asked or free),
        checkpointing=training.gradient_checkpointing in (None, "auto"),
        sharding=asked,
        kernels=training.kernels is None and not training.fp8,
        loss=training.loss is None,
        attention=training.attention is None,
        gathered=isinstance(composed.sharding, Fsdp) and composed.sharding.reshard_after_forward is None,
    )
    if asked or (implied and not writes and (found.micro_batch or found.checkpointing or found.kernels or found.loss or found.gathered)):
        return found
    layers = training.gradient_checkpointing == "auto" or (implied and writes and found.checkpointing)
    return LAYERS if layers else None


def refuse_no_batch(composed: Composed) -> None:
    training = composed.training
    if training.effective_batch is None:
        raise ConfigError(
            "training.fit=auto chooses the micro-batch that keeps the effective batch, and training.effective_batch has no value. "
            "Set it to the samples of one optimizer step over all ranks."
        )
    if training.accumulation is not None:
        raise ConfigError(
            f"training.fit=auto chooses training.accumulation, but training.accumulation={training.accumulation} is given. Leave one of them out."
        )
