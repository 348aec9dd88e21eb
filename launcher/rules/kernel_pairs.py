"""What training.kernels=fused is not built for."""

from conf.schema import Fsdp, Run, Zero
from conf.stages import Loss, stage_row
from launcher.rules.rule import Rule


def fused(run: Run) -> bool:
    return run.training.kernels == "fused"


def splits_weights(run: Run) -> bool:
    return isinstance(run.sharding, Fsdp) or (isinstance(run.sharding, Zero) and run.sharding.stage == 3)


KERNEL_RULES: tuple[Rule, ...] = (
    Rule(
        "kernels-stage",
        lambda run: fused(run) and stage_row(run.stage.name).loss is not Loss.NEXT_TOKEN,
        "The fused kernels lay rows end to end and know only the next-token loss. This stage compares whole rows.",
        "training.kernels=plain",
    ),
    Rule(
        "kernels-split",
        lambda run: fused(run) and splits_weights(run),
        "The fused kernels read whole weights and adapters, and this sharding gathers them only while a module runs its own forward pass.",
        "training.kernels=plain",
    ),
)
