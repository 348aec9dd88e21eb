"""What training.kernels=fused and training.fp8=true are not built for."""

from conf.kernels import FUSED_FAMILIES
from conf.regimes import regime_row
from conf.schema import Fsdp, Lora, Qlora, Run, Zero
from conf.stages import compares_joined, stage_row
from launcher.facts.node import is_before_ada
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
        "fp8-split",
        lambda run: run.training.fp8 and splits_weights(run),
        "The products in 8 bits are part of the fused kernels, which read whole weights, and this sharding gathers them only while a module runs.",
        "training.fp8=false",
    ),
    Rule(
        "kernels-split",
        lambda run: fused(run) and splits_weights(run) and not run.training.fp8,
        "The fused kernels read whole weights and adapters, and this sharding gathers them only while a module runs its own forward pass.",
        "training.kernels=plain",
    ),
    Rule(
        "fp8-kernels",
        lambda run: run.training.fp8 and not fused(run),
        "training.fp8=true is part of the fused kernels.",
        "training.kernels=fused",
    ),
    Rule(
        "fp8-regime",
        lambda run: run.training.fp8 and regime_row(run.regime.name).learns != "an adapter",
        "training.fp8=true makes only products of frozen matrices under adapters in 8 bits.",
        "regime=lora",
    ),
    Rule(
        "fp8-quantised",
        lambda run: run.training.fp8 and isinstance(run.regime, Qlora) and not run.regime.dequantised,
        "training.fp8=true rounds 16-bit weights. Those of this base are packed, and only a copy that is dequantised once has 16 bits to round.",
        "regime.dequantised=true",
    ),
    Rule(
        "fp8-dora",
        lambda run: run.training.fp8 and isinstance(run.regime, Lora) and run.regime.dora,
        "DoRA's layers are computed by PEFT's own operations, so training.fp8=true would make nothing in 8 bits.",
        "regime.dora=false",
    ),
    Rule(
        "fp8-stage",
        lambda run: run.training.fp8 and stage_row(run.stage.name).learns != "next token",
        "training.fp8=true was tried only in stages that learn the next token. Elsewhere a loss compares sums over texts, and a reference is "
        "computed in 16 bits, so rounding would count as a difference of the models.",
        "training.fp8=false",
    ),
    Rule(
        "fp8-precision",
        lambda run: run.training.fp8 and run.training.precision not in ("bf16_amp", "bf16"),
        "The 8-bit products of training.fp8=true answer in bf16.",
        "training.precision=bf16_amp",
    ),
    Rule(
        "fp8-family",
        lambda run: run.training.fp8 and run.model.architecture.get("model_type") not in FUSED_FAMILIES,
        "The 8-bit products were compared only in the families whose layers the fused kernels compute.",
        "training.fp8=false",
    ),
    Rule(
        "fp8-old-gpu",
        lambda run: run.training.fp8 and run.node.gpus != 0 and is_before_ada(run.node.gpu_name),
        "This GPU has no products in 8-bit floating point: they came with the Ada and Hopper generations (compute capability 8.9).",
        "training.fp8=false",
    ),
)
