"""Pairs of choices that cannot work: one row each, with what would happen and what to take instead."""

from collections.abc import Callable
from dataclasses import dataclass

from conf.schema import Freeze, Fsdp, Lora, Qlora, Run, Zero


@dataclass(frozen=True)
class Rule:
    name: str
    applies: Callable[[Run], bool]
    why: str  # what happens when it is tried
    instead: str  # overrides, ready to paste


def on_cpu(run: Run) -> bool:
    return run.node.gpus == 0


def bits(run: Run) -> int | None:
    return run.regime.bits if isinstance(run.regime, Qlora) else None


def splits_weights(run: Run) -> bool:
    return isinstance(run.sharding, Fsdp) or (isinstance(run.sharding, Zero) and run.sharding.stage == 3)


def offloads(run: Run) -> bool:
    return isinstance(run.sharding, Zero) and run.sharding.offload_optimizer


RULES: tuple[Rule, ...] = (
    Rule(
        "int8-split",
        lambda run: bits(run) == 8 and splits_weights(run),
        "bitsandbytes keeps 8-bit weights as int8 tensors with scales beside them, and ZeRO-3 and FSDP2 split floating tensors only.",
        "sharding=zero2",
    ),
    Rule(
        "hqq-split",
        lambda run: bits(run) == 2 and splits_weights(run),
        "HQQ packs 2-bit weights into uint8 tensors outside of the module's parameters: ZeRO-3 and FSDP2 do not split them, every rank keeps all.",
        "sharding=zero2",
    ),
    Rule(
        "hqq-dora",
        lambda run: bits(run) == 2 and isinstance(run.regime, Lora) and run.regime.dora,
        "DoRA needs the norms of the base weights, and peft cannot read them from HQQ's 2-bit layers.",
        "regime.dora=false",
    ),
    Rule(
        "fused-loss-cpu",
        lambda run: run.training.loss == "fused" and on_cpu(run),
        "The fused loss is a Triton kernel of liger-kernel, and Triton compiles for GPUs only.",
        "training.loss=plain",
    ),
    Rule(
        "paged-cpu",
        lambda run: run.optim.name == "paged_adamw_8bit" and on_cpu(run),
        "Paged states live in CUDA's unified memory; a CPU node has no CUDA driver to page them.",
        "optim=adamw",
    ),
    Rule(
        "fsdp2-cpu",
        lambda run: isinstance(run.sharding, Fsdp) and on_cpu(run),
        "On a CPU accelerate ignores FSDP2 without a word and runs plain data parallelism: nothing would be split.",
        "sharding=zero3",
    ),
    Rule(
        "fp16-cpu",
        lambda run: run.training.precision == "fp16_amp" and on_cpu(run),
        "fp16 training scales its losses on a CUDA device (torch.amp.GradScaler); accelerate refuses fp16 on a CPU.",
        "training.precision=bf16_amp",
    ),
    Rule(
        "offload-8bit",
        lambda run: offloads(run) and run.optim.name in ("adamw_8bit", "paged_adamw_8bit"),
        "Offloaded states are updated on the CPU by DeepSpeed's own Adam; bitsandbytes' 8-bit step would be handed host tensors.",
        "optim=adamw",
    ),
    Rule(
        "freeze-nothing",
        lambda run: isinstance(run.regime, Freeze) and run.regime.layers == 0 and not run.regime.modules,
        "With no layers and no modules nothing learns, and the optimizer refuses an empty list.",
        "regime.layers=2",
    ),
)


def incompatibilities(run: Run) -> list[Rule]:
    """The rows that forbid this settled run; empty where it can work."""
    return [rule for rule in RULES if rule.applies(run)]
