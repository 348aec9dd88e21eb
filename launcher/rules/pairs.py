"""Pairs of choices that cannot work: one row each, with what would happen and what to use instead."""

from conf.kernels import FUSED_FAMILIES
from conf.optimizers import BITSANDBYTES, optimizer_row
from conf.ranks import ranks
from conf.regimes import regime_row
from conf.schema import Badam, Ddp, Freeze, Fsdp, Galore, Qlora, Run, Zero
from conf.stages import Loss, compares_joined, stage_row
from launcher.rules.attention import ATTENTION_RULES, family_traits
from launcher.rules.kernel_pairs import KERNEL_RULES
from launcher.rules.layer_pairs import LAYER_RULES
from launcher.rules.regime_pairs import REGIME_RULES
from launcher.rules.rule import Rule
from launcher.rules.stage_pairs import STAGE_RULES


def on_cpu(run: Run) -> bool:
    return run.node.gpus == 0


def bits(run: Run) -> int | None:
    return run.regime.bits if isinstance(run.regime, Qlora) else None


def offloads(run: Run) -> bool:
    return isinstance(run.sharding, Zero) and run.sharding.offload_optimizer


def can_fuse(run: Run) -> bool:
    """Whether liger has a fused loss for the model."""
    return family_traits(run).fused_loss


def unfused_family(run: Run) -> bool:
    return run.model.architecture.get("model_type") not in FUSED_FAMILIES


def alters_logits(run: Run) -> bool:
    """Whether the model does more than its head between the last hidden state and the loss, or adds to the loss."""
    architecture = run.model.architecture
    more = architecture.get("final_logit_softcapping") is not None or architecture.get("output_router_logits", False)
    return more or not family_traits(run).head_alone


# Rows about sharding were run without the refusal (benchmarks/rules/refused_pairs.py; the record is in results/), but for Muon under FSDP2,
# which is refused by reasoning; `why` holds what a run ended with.
RULES: tuple[Rule, ...] = (
    Rule(
        "background-split",
        lambda run: run.checkpoint.background is True and not isinstance(run.sharding, Ddp),
        "Its ranks write their parts of a checkpoint together, between two steps.",
        "checkpoint.background=false",
    ),
    Rule(
        "skip-zero",
        lambda run: run.training.on_nan == "skip" and isinstance(run.sharding, Zero),
        "DeepSpeed makes a step within its backward pass, before anything can be left out of it.",
        "training.on_nan=stop",
    ),
    Rule(
        "skip-scaler",
        lambda run: run.training.on_nan == "skip" and run.training.precision == "fp16_amp",
        "The loss scaler of fp16_amp leaves out steps with an infinite gradient itself, and ends where a step has no gradient.",
        "training.on_nan=stop",
    ),
    Rule(
        "split-bound",
        lambda run: run.training.on_oom == "split" and stage_row(run.stage.name).bound != "",
        "The numbers of this stage change with the samples that pass together, so smaller micro-batches would be another training.",
        "training.on_oom=stop",
    ),
    Rule(
        "split-streaming",
        lambda run: run.training.on_oom == "split" and run.data.streaming,
        "With data.streaming=true smaller micro-batches would give each rank other samples.",
        "training.on_oom=stop",
    ),
    Rule(
        "int8-fsdp2",
        lambda run: bits(run) == 8 and isinstance(run.sharding, Fsdp),
        "FSDP2 cannot split int8 weights. The ranks end with `only Tensors of floating point dtype can require gradients`.",
        "sharding=zero3",
    ),
    Rule(
        "int8-latent",
        lambda run: bits(run) == 8 and family_traits(run).latent_inputs,
        "deepseek_v3 makes keys and values from an input with four dimensions, and bitsandbytes' 8-bit layers end with "
        "`Only two or three dimensional matrices are supported for argument A`.",
        "regime.bits=4",
    ),
    Rule(
        "hqq-fsdp2",
        lambda run: bits(run) == 2 and isinstance(run.sharding, Fsdp),
        "FSDP2 cannot split HQQ's packed weights. The ranks end with `only Tensors of floating point dtype can require gradients`.",
        "sharding=zero2",
    ),
    Rule(
        "hqq-zero3",
        lambda run: bits(run) == 2 and isinstance(run.sharding, Zero) and run.sharding.stage == 3,
        "ZeRO-3 has split the weights before HQQ can pack them. The ranks end with `not enough values to unpack (expected 2, got 1)`.",
        "sharding=zero2",
    ),
    Rule(
        "bitsandbytes-fsdp2",
        lambda run: isinstance(run.sharding, Fsdp) and optimizer_row(run.optim.name).library == BITSANDBYTES,
        "bitsandbytes cannot update split weights: "
        "`Operator bitsandbytes.optimizer_update_32bit.default does not have a sharding strategy registered`.",
        "sharding=zero3",
    ),
    Rule(
        "adafactor-fsdp2",
        lambda run: isinstance(run.sharding, Fsdp) and optimizer_row(run.optim.name).keeps == "factored moments",
        "Adafactor's factored states are not split tensors: `aten.add_.Tensor got mixed torch.Tensor and DTensor`.",
        "sharding=zero3",
    ),
    Rule(
        "muon-split",
        lambda run: optimizer_row(run.optim.name).keeps == "matrix momentum" and not isinstance(run.sharding, Ddp),
        "Muon needs whole matrices, and this sharding gives it flat or split ones. ZeRO ends with `Param gradient must be a 2D matrix`.",
        "sharding=ddp",
    ),
    Rule(
        "low-rank-split",
        lambda run: isinstance(run.optim, Galore) and not isinstance(run.sharding, Ddp),
        "GaLore and APOLLO need whole matrices, and this sharding gives them flat or split ones. ZeRO ends with `tuple index out of range`.",
        "sharding=ddp",
    ),
    Rule(
        "low-rank-adapter",
        lambda run: isinstance(run.optim, Galore) and regime_row(run.regime.name).learns == "an adapter",
        "An adapter's matrices are already as small as its rank. Projecting them saves no states and adds projectors.",
        "optim=adamw",
    ),
    Rule(
        "galore-8bit-cpu",
        lambda run: isinstance(run.optim, Galore) and optimizer_row(run.optim.name).bits == 8 and on_cpu(run),
        "galore-torch waits for a GPU after every weight: `Torch not compiled with CUDA enabled`.",
        "optim=galore",
    ),
    Rule(
        "badam-regime",
        lambda run: isinstance(run.optim, Badam) and regime_row(run.regime.name).learns != "every weight",
        "BAdam itself chooses what learns, one layer of the whole model after the other. It would pass over frozen layers and adapters.",
        "regime=full",
    ),
    Rule(
        "badam-ranks",
        lambda run: isinstance(run.optim, Badam) and (ranks(run) > 1 or not isinstance(run.sharding, Ddp)),
        "BAdam changes which weights learn during training. Ranks average only the gradients of the weights that learned at the start.",
        "sharding=ddp cluster.nodes=1 cluster.ranks_per_node=1",
    ),
    Rule(
        "bf16-offload",
        lambda run: offloads(run) and run.training.precision == "bf16",
        "DeepSpeed's CPU Adam keeps fp32 states: `bf16_optimizer_states with ZeRO-Offload requires DeepSpeedCPUAdam constructed with "
        "fp32_optimizer_states=False`.",
        "training.precision=bf16_amp",
    ),
    Rule(
        "offload-optimizer",
        lambda run: offloads(run) and not optimizer_row(run.optim.name).cpu_form,
        "Where states are offloaded, accelerate uses DeepSpeed's CPU Adam instead of every optimizer for which it has no CPU form "
        "(utils/deepspeed.py, map_pytorch_optim_to_deepspeed). A different optimizer would train, without a message.",
        "optim=adamw",
    ),
    Rule(
        "fused-loss-cpu",
        lambda run: run.training.loss == "fused" and on_cpu(run),
        "The fused loss is a Triton kernel of liger-kernel, and Triton compiles for GPUs only.",
        "training.loss=chunked",
    ),
    Rule(
        "fused-loss-family",
        lambda run: run.training.loss == "fused" and not can_fuse(run),
        "liger-kernel has no fused loss for this family. The plain loss would run instead, with the memory of all logits.",
        "training.loss=plain",
    ),
    Rule(
        "kernels-loss",
        lambda run: run.training.kernels == "fused" and run.training.loss == "fused" and (unfused_family(run) or alters_logits(run)),
        "The loss of the fused kernels computes only the head of the families that were compared. A soft cap, a router's loss, or what "
        "another family does would be lost.",
        "training.loss=chunked",
    ),
    Rule(
        "kernels-head",
        lambda run: compares_joined(run) and stage_row(run.stage.name).loss is not Loss.SCORE and alters_logits(run),
        "The fused kernels compute the head only where an answer is, and nothing but the head. A soft cap or scale of the logits, a router's loss, "
        "or what an untested family does would be lost.",
        "training.kernels=plain",
    ),
    Rule(
        "chunked-fsdp2",
        lambda run: run.training.loss == "chunked" and isinstance(run.sharding, Fsdp),
        "The chunked loss computes the head a second time in the backward pass, where FSDP2 has split it again: `mixed torch.Tensor and DTensor`.",
        "training.loss=plain",
    ),
    Rule(
        "chunked-loss-head",
        lambda run: run.training.loss == "chunked" and alters_logits(run),
        "The chunked loss computes only the head. A soft cap or scale of the logits, a router's loss, or what an untested family does would be lost.",
        "training.loss=plain",
    ),
    Rule(
        "fsdp2-cpu",
        lambda run: isinstance(run.sharding, Fsdp) and on_cpu(run),
        "On a CPU accelerate ignores FSDP2 without a message and runs plain data parallelism. Nothing would be split.",
        "sharding=zero3",
    ),
    Rule(
        "freeze-nothing",
        lambda run: isinstance(run.regime, Freeze) and run.regime.layers == 0 and not run.regime.modules and run.regime.new_blocks == 0,
        "Without layers and modules nothing learns, and the optimizer refuses an empty list.",
        "regime.layers=2",
    ),
    *ATTENTION_RULES,
    *KERNEL_RULES,
    *LAYER_RULES,
    *REGIME_RULES,
    *STAGE_RULES,
)


def incompatibilities(run: Run) -> list[Rule]:
    """The rows that forbid this settled run; empty where it can work."""
    return [rule for rule in RULES if rule.applies(run)]
