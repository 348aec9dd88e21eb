"""Pairs of a form of the regime and another choice that cannot work."""

from conf.mixtures import adapts_experts, names_experts
from conf.schema import Badam, Freeze, Fsdp, Lora, Qlora, Run, Zero
from conf.stages import stage_row
from launcher.rules.rule import Rule

PRODUCT_ROW = (
    8  # elements of 16 bits in the 16 bytes that rows of torch's grouped products are a multiple of (`strides should be multiple of 16 bytes`)
)
EMBEDDINGS = ("embed", "wte")  # in the names of the families' embeddings


def splits_early(run: Run) -> bool:
    """Whether weights are split when the model is built."""
    return isinstance(run.sharding, Fsdp) or (isinstance(run.sharding, Zero) and run.sharding.stage == 3)


def changes_base(run: Run) -> bool:
    return isinstance(run.regime, Lora) and run.regime.init != "default"


def keeps_dequantised(run: Run) -> bool:
    return isinstance(run.regime, Qlora) and run.regime.dequantised


def continues(run: Run) -> bool:
    return isinstance(run.regime, Lora) and run.regime.adapter is not None


def inserts(run: Run) -> bool:
    return isinstance(run.regime, Freeze) and run.regime.new_blocks > 0


def adds_rows(run: Run) -> bool:
    return len(run.model.added_tokens) > 0


REGIME_RULES: tuple[Rule, ...] = (
    Rule(
        "pissa-quantised",
        lambda run: isinstance(run.regime, Qlora) and changes_base(run),
        "PiSSA computes the adapter from the base's weights, and these are packed: `Please initialize PiSSA under float32, float16, or bfloat16`.",
        "regime.init=default",
    ),
    Rule(
        "dequantised-int8",
        lambda run: isinstance(run.regime, Qlora) and run.regime.dequantised and run.regime.bits == 8,
        "In 8 bits the inputs of a layer are rounded too, at every use (LLM.int8, arXiv:2208.07339), so a copy of the weights is not all of it.",
        "regime.dequantised=false",
    ),
    Rule(
        "dequantised-split",
        lambda run: keeps_dequantised(run) and splits_early(run),
        "This sharding has split the packed weights before they can be dequantised.",
        "sharding=zero2",
    ),
    Rule(
        "pissa-split",
        lambda run: changes_base(run) and splits_early(run),
        "This sharding holds the adapter in parts when it is saved as one for the whole base. Under ZeRO-3 half of its rank was missing.",
        "sharding=zero2",
    ),
    Rule(
        "pissa-reference",
        lambda run: changes_base(run) and stage_row(run.stage.name).reference,
        "The reference of this stage is the base without its adapter, and PiSSA has moved the main directions out of the base.",
        "regime.init=default",
    ),
    Rule(
        "pissa-continued",
        lambda run: changes_base(run) and continues(run),
        "An adapter that is trained further starts from its own weights, not from the base's directions.",
        "regime.init=default",
    ),
    Rule(
        "adapter-reference",
        lambda run: continues(run) and stage_row(run.stage.name).reference,
        "The reference of this stage is the base without its adapter, not the adapter as it starts. Merge the adapter first (`regimen export`), "
        "and train the merged model.",
        "regime.adapter=null",
    ),
    Rule(
        "experts-split",
        lambda run: isinstance(run.regime, Qlora) and not run.regime.dequantised and splits_early(run) and names_experts(run.model.architecture),
        "Experts are quantised one by one as they are loaded, and this sharding splits a model before: transformers would then load them in 16 bits.",
        "sharding=zero2",
    ),
    Rule(
        "adapted-experts-plain",
        lambda run: adapts_experts(run) and not (isinstance(run.regime, Qlora) and not run.regime.dequantised),
        "Adapters of routed experts are multiplied beside packed experts alone. Beside experts of 16 bits PEFT would add their product to a copy of "
        "all experts of a layer in every pass.",
        "regime=qlora regime.dequantised=false",
    ),
    Rule(
        "adapted-experts-dropout",
        lambda run: adapts_experts(run) and isinstance(run.regime, Lora) and run.regime.dropout > 0,
        "PEFT loads no adapter of stacked experts that has dropout: `lora.ParamWrapper does not work with lora_dropout != 0`.",
        "regime.dropout=0.0",
    ),
    Rule(
        "adapted-experts-dora",
        lambda run: adapts_experts(run) and isinstance(run.regime, Lora) and run.regime.dora,
        "PEFT knows no DoRA for stacked experts: `lora.ParamWrapper does not work with use_dora=True`.",
        "regime.dora=false",
    ),
    Rule(
        "adapted-experts-rank",
        lambda run: adapts_experts(run) and isinstance(run.regime, Lora) and run.regime.rank % PRODUCT_ROW > 0,
        f"Rows of torch's grouped products are multiples of 16 bytes, and a rank that is no multiple of {PRODUCT_ROW} fills none: "
        "`strides should be multiple of 16 bytes`.",
        f"regime.rank={2 * PRODUCT_ROW}",
    ),
    Rule(
        "adapted-experts-kernels",
        lambda run: adapts_experts(run) and run.training.kernels == "fused",
        "The memory of layers whose experts have adapters is traced, and a trace knows the plain kernels alone.",
        "training.kernels=plain",
    ),
    Rule(
        "adapted-experts-layers",
        lambda run: adapts_experts(run) and not isinstance(run.training.gradient_checkpointing, bool),
        "The memory of layers whose experts have adapters is traced, with all of them computed again, or none.",
        "training.gradient_checkpointing=true",
    ),
    Rule(
        "new-blocks-split",
        lambda run: inserts(run) and isinstance(run.sharding, Zero) and run.sharding.stage == 3,
        "ZeRO-3 has split the weights before blocks can be copied. The ranks end with an AssertionError of DeepSpeed.",
        "sharding=zero2",
    ),
    Rule(
        "new-blocks-layers",
        lambda run: inserts(run) and isinstance(run.regime, Freeze) and run.regime.layers != 0,
        "With regime.new_blocks only those blocks and regime.modules learn, and regime.layers names others.",
        "regime.layers=0",
    ),
    Rule(
        "tokens-frozen",
        lambda run: adds_rows(run) and isinstance(run.regime, Freeze) and not any(part in name for name in run.regime.modules for part in EMBEDDINGS),
        "The embedding is frozen, so the rows of added tokens would stay at the mean, where they start.",
        "regime.modules=[embed_tokens,lm_head]",
    ),
    Rule(
        "tokens-badam",
        lambda run: adds_rows(run) and isinstance(run.optim, Badam),
        "BAdam trains only the layers, so the rows of added tokens would stay at the mean, where they start.",
        "optim=adamw",
    ),
    Rule(
        "rows-split",
        lambda run: (adds_rows(run) or run.model.vocab_multiple > 1) and splits_early(run),
        "This sharding splits the embedding before it can grow. Under ZeRO-3: `index 260 is out of bounds for dimension 0 with size 2`.",
        "sharding=zero2",
    ),
    Rule(
        "badam-head",
        lambda run: isinstance(run.optim, Badam) and stage_row(run.stage.name).new_head,
        "BAdam trains only the layers, and the head of this stage starts with random weights. It would never learn.",
        "optim=adamw",
    ),
)
