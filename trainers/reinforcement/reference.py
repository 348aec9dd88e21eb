"""Puts the frozen copy of the starting model where it computes."""

from torch import nn
from transformers import PreTrainedModel, Trainer
from trl.models.utils import prepare_deepspeed, prepare_fsdp


def placed_reference(reference: PreTrainedModel, trainer: Trainer) -> nn.Module:
    """Split over the ranks where the trained model is, whole on each where it is not."""
    if trainer.is_deepspeed_enabled:
        return prepare_deepspeed(reference, trainer.accelerator)
    if trainer.is_fsdp_enabled:
        return prepare_fsdp(reference, trainer.accelerator)
    return trainer.accelerator.prepare_model(reference, evaluation_mode=True)
