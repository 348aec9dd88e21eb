"""Pairs of a form of the regime and another choice that cannot work."""

from conf.schema import Badam, Freeze, Fsdp, Lora, Qlora, Run, Zero
from conf.stages import stage_row
from launcher.rules.rule import Rule

EMBEDDINGS = ("embed", "wte")  # in the names of the families' embeddings


def splits_early(run: Run) -> bool:
    """Whether weights are split when the model is built."""
    return isinstance(run.sharding, Fsdp) or (isinstance(run.sharding, Zero) and run.sharding.stage == 3)


def changes_base(run: Run) -> bool:
    return isinstance(run.regime, Lora) and run.regime.init != "default"


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
        "PiSSA takes the adapter out of the base's weights, and these are packed: `Please initialize PiSSA under float32, float16, or bfloat16`.",
        "regime.init=default",
    ),
    Rule(
        "pissa-split",
        lambda run: changes_base(run) and splits_early(run),
        "This sharding holds the adapter in parts when it is saved as one for the whole base: under ZeRO-3 half of its rank was missing.",
        "sharding=zero2",
    ),
    Rule(
        "pissa-reference",
        lambda run: changes_base(run) and stage_row(run.stage.name).reference,
        "This stage compares with the base, its adapter switched off, and PiSSA has taken the main directions out of it.",
        "regime.init=default",
    ),
    Rule(
        "pissa-continued",
        lambda run: changes_base(run) and continues(run),
        "An adapter that goes on learning starts from its own weights, not from the base's directions.",
        "regime.init=default",
    ),
    Rule(
        "adapter-reference",
        lambda run: continues(run) and stage_row(run.stage.name).reference,
        "This stage compares with the base, its adapter switched off, and not with the adapter as it starts: merge that first (`regimen export`), "
        "and train the merged model.",
        "regime.adapter=null",
    ),
    Rule(
        "new-blocks-split",
        lambda run: inserts(run) and isinstance(run.sharding, Zero) and run.sharding.stage == 3,
        "ZeRO-3 has split the weights before blocks can be copied: the ranks end with an AssertionError of DeepSpeed.",
        "sharding=zero2",
    ),
    Rule(
        "new-blocks-layers",
        lambda run: inserts(run) and isinstance(run.regime, Freeze) and run.regime.layers != 0,
        "With regime.new_blocks only those blocks and regime.modules learn, and regime.layers asks for others.",
        "regime.layers=0",
    ),
    Rule(
        "tokens-frozen",
        lambda run: adds_rows(run) and isinstance(run.regime, Freeze) and not any(part in name for name in run.regime.modules for part in EMBEDDINGS),
        "The rows of added tokens would stay where they begin, at the mean: the embedding is frozen.",
        "regime.modules=[embed_tokens,lm_head]",
    ),
    Rule(
        "tokens-badam",
        lambda run: adds_rows(run) and isinstance(run.optim, Badam),
        "BAdam trains the layers alone: the rows of added tokens would stay where they begin, at the mean.",
        "optim=adamw",
    ),
    Rule(
        "rows-split",
        lambda run: (adds_rows(run) or run.model.vocab_multiple > 1) and splits_early(run),
        "This sharding has split the embedding before it can grow: under ZeRO-3 `index 260 is out of bounds for dimension 0 with size 2`.",
        "sharding=zero2",
    ),
    Rule(
        "badam-head",
        lambda run: isinstance(run.optim, Badam) and stage_row(run.stage.name).new_head,
        "BAdam trains the layers alone, and the head of this stage begins at random: it would never learn.",
        "optim=adamw",
    ),
)
