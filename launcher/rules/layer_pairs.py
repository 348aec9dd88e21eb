"""Choices beside which training.gradient_checkpointing is not a number of layers."""

from conf.schema import Badam, Freeze, Fsdp, Run
from launcher.rules.rule import Rule

ALL = "training.gradient_checkpointing=true"


def counts_layers(run: Run) -> bool:
    return not isinstance(run.training.gradient_checkpointing, bool)


LAYER_RULES: tuple[Rule, ...] = (
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
