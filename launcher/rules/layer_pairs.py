"""Choices beside which training.gradient_checkpointing is not a number of layers, and families beside which it is false."""

from collections.abc import Mapping
from typing import Any

from conf.schema import Badam, Freeze, Fsdp, Run
from launcher.rules.rule import Rule

ALL = "training.gradient_checkpointing=true"

# Causal language models that transformers 5.23 cannot recompute; tests/trainers/model/test_checkpointing.py compares them with the installed version.
WITHOUT_RECOMPUTATION = frozenset({"cpmant", "ctrl", "gpt_neox_japanese", "jetmoe", "openai-gpt", "reformer", "xlm", "xlnet"})


NO_RECOMPUTATION = "transformers cannot compute the activations of this family again"


def can_recompute(architecture: Mapping[str, Any]) -> bool:
    return architecture.get("model_type") not in WITHOUT_RECOMPUTATION


def counts_layers(run: Run) -> bool:
    return not isinstance(run.training.gradient_checkpointing, bool)


LAYER_RULES: tuple[Rule, ...] = (
    Rule(
        "recomputation-family",
        lambda run: run.training.gradient_checkpointing is not False and not can_recompute(run.model.architecture),
        f"{NO_RECOMPUTATION}: the ranks end with `does not support activation checkpointing`.",
        "training.gradient_checkpointing=false",
    ),
    Rule(
        "layers-fsdp2",
        lambda run: counts_layers(run) and isinstance(run.sharding, Fsdp),
        "Under FSDP2 memory is predicted only where all layers are computed again, or none.",
        ALL,
    ),
    Rule(
        "layers-badam",
        lambda run: counts_layers(run) and isinstance(run.optim, Badam),
        "BAdam lets one layer learn after the other, and memory is predicted only where all are computed again, or none.",
        ALL,
    ),
    Rule(
        "layers-new-blocks",
        lambda run: counts_layers(run) and isinstance(run.regime, Freeze) and run.regime.new_blocks > 0,
        "New blocks stand between frozen ones, and memory is predicted only where all are computed again, or none.",
        ALL,
    ),
)
