"""Which of the kernels a run takes, and what it takes instead where one does not reach: printed into the rank's log."""

from dataclasses import replace

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

from conf.kernels import FUSED_FAMILIES
from conf.schema import Run
from trainers.data.rows.collator import build_collator
from trainers.kernels.fp8 import CAPABLE
from trainers.kernels.layers import fuse_layers
from trainers.kernels.lora import fuse_adapters, products_in_fp8
from trainers.kernels.loss import compute_loss_fused
from trainers.kernels.norms import spare_frozen_norms
from trainers.kernels.rows import pad_evaluation
from trainers.kernels.stepping import keep_going


def fused(run: Run) -> bool:
    return run.training.kernels == "fused"


def with_fused_base(model: PreTrainedModel, run: Run) -> PreTrainedModel:
    """The layers and the loss of a model that has no adapter yet.

    Raises:
        ValueError: when training.loss=fused is asked for in a family whose logits were not compared.
    """
    family = model.config.model_type
    in_place = run.node.gpus != 0 and fuse_layers(model)
    say("layers", "liger's norms, rotary embedding and MLP" if in_place else f"transformers' own: no GPU, or {family} was not compared")
    if run.training.loss == "fused":  # only of stages that learn the next token
        if family not in FUSED_FAMILIES:
            raise ValueError(f"training.kernels=fused has no fused loss for {family}. Set training.loss=chunked or training.kernels=plain.")
        compute_loss_fused(model)
    return model


def with_fused_adapter(model: PreTrainedModel | PeftModel, run: Run) -> PreTrainedModel | PeftModel:
    """Raises ValueError when training.fp8=true is asked for on a GPU that has no such products."""
    if isinstance(model, PeftModel):
        if run.training.fp8:
            refuse_incapable(run)
        if run.node.gpus:
            say("norms", f"torch's own in {spare_frozen_norms(model.get_base_model())}, whose weights do not learn")
        left = fuse_adapters(model, run.training.fp8)
        say("adapters", "; ".join(f"PEFT's own in {count} layers: each {reason}" for reason, count in left.items()) or "one function for each input")
        if run.training.fp8:
            rounded, others = products_in_fp8(model)
            say("frozen matrices", f"products in fp8 of {rounded}, in 16 bits of {others}")
    return model


def refuse_incapable(run: Run) -> None:
    """The launcher knows a card by its name alone."""
    if run.node.gpus and torch.cuda.get_device_capability() < CAPABLE:
        raise ValueError(f"training.fp8=true: {torch.cuda.get_device_name()} has no products in 8-bit floating point. Set training.fp8=false.")


def with_fused_steps(trainer: Trainer, run: Run, tokenizer: PreTrainedTokenizerBase) -> Trainer:
    plain = replace(run, training=replace(run.training, kernels="plain"))
    pad_evaluation(trainer, build_collator(plain, tokenizer))
    keep_going(trainer)
    return trainer


def say(part: str, what: str) -> None:
    print(f"kernels of {part}: {what}", flush=True)
