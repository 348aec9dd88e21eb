"""What training.kernels=fused is not built for."""

from conf.schema import Fsdp, Run, Zero
from conf.stages import compares_joined, stage_row
from launcher.rules.rule import Rule


def fused(run: Run) -> bool:
    return run.training.kernels == "fused"


def splits_weights(run: Run) -> bool:
    return isinstance(run.sharding, Fsdp) or (isinstance(run.sharding, Zero) and run.sharding.stage == 3)


KERNEL_RULES: tuple[Rule, ...] = (
    Rule(
        "kernels-stage",
        lambda run: fused(run) and stage_row(run.stage.name).learns == "own answers",
        "The fused kernels lay given rows end to end. This stage writes answers to padded prompts, and reads them as they were written.",
        "training.kernels=plain",
    ),
    Rule(
        "kernels-padded",
        lambda run: compares_joined(run) and run.training.attention != "varlen",
        "In a stage that compares answers the fused kernels know only texts that are laid end to end, which need training.attention=varlen.",
        "training.kernels=plain",
    ),
    Rule(
        "kernels-split",
        lambda run: fused(run) and splits_weights(run),
        "The fused kernels read whole weights and adapters, and this sharding gathers them only while a module runs its own forward pass.",
        "training.kernels=plain",
    ),
)
