"""One row for each optimizer: what it keeps for what learns, and who makes it. Its settings are its YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from conf.rows import row_of
from conf.schema import Apollo, Badam, Galore, Optim

Keeps = Literal[
    "nothing",
    "moments",  # as many as `moments` says, each of as many elements as learn
    "factored moments",  # one row and one column mean per matrix
    "matrix momentum",  # one momentum for every matrix between embedding and head, AdamW's moments for all else
    "projected moments",  # of a projection of each matrix's gradient, AdamW's moments for all else
    "moments of one layer",  # of the one that learns now
]
# What a step needs beside the states (launcher/memory/weights/optimizer.py says how much of it).
Step = Literal[
    "in place",  # nothing
    "fused adamw",  # nothing on a GPU; on a CPU one tensor at a time
    "foreach adamw",  # all tensors at once; on a CPU one at a time
    "foreach sgd",  # a second list of gradients where there is weight decay
    "update by update",  # Adafactor's, of one tensor at a time
    "orthogonal",  # Muon's iterates of one matrix at a time
    "projected",  # the update of one tensor, and the decomposition of one gradient
    "one layer",  # casts of one tensor at a time
]


@dataclass(frozen=True)
class OptimizerRow:
    keeps: Keeps
    step: Step
    # The name by which transformers.TrainingArguments knows it; None: trainers/optimizers/build.py has a builder under our own name.
    transformers: str | None
    moments: int = 2  # that it keeps of every element; 1 without a second moment, as in Lion
    bits: Literal[8, 32] | None = None  # of an element of a moment: 32 or 8, independent of the weights; None: as many as the weights that it updates
    paged: bool = False  # moments move to host memory under pressure
    library: str | None = None  # the distribution that holds it, where that is not torch or transformers
    settings: type[Optim] = Optim  # the type of its YAML file
    on_cpu: str | None = None  # transformers' name for it on a CPU, where that differs
    fused: str | None = None  # the same optimizer from a fused kernel, for GPUs
    in_eight_bits: str | None = None  # the same optimizer with moments of 8 bits
    cpu_form: bool = False  # DeepSpeed steps it on the CPU where states are offloaded (DeepSpeedCPUAdam with adamw_mode, DeepSpeedCPULion)


GALORE, APOLLO, BITSANDBYTES = "galore-torch", "apollo-torch", "bitsandbytes"

OPTIMIZERS: dict[str, OptimizerRow] = {
    "adamw": OptimizerRow(
        keeps="moments", step="fused adamw", transformers="adamw_torch_fused", on_cpu="adamw_torch", in_eight_bits="adamw_8bit", cpu_form=True
    ),
    "adamw_foreach": OptimizerRow(
        keeps="moments", step="foreach adamw", transformers="adamw_torch", fused="adamw", in_eight_bits="adamw_8bit", cpu_form=True
    ),
    "adamw_8bit": OptimizerRow(keeps="moments", bits=8, step="in place", transformers="adamw_bnb_8bit", library=BITSANDBYTES),
    "paged_adamw": OptimizerRow(keeps="moments", bits=32, step="in place", paged=True, transformers="paged_adamw_32bit", library=BITSANDBYTES),
    "paged_adamw_8bit": OptimizerRow(keeps="moments", bits=8, step="in place", paged=True, transformers="paged_adamw_8bit", library=BITSANDBYTES),
    "adafactor": OptimizerRow(keeps="factored moments", step="update by update", transformers="adafactor"),
    "lion": OptimizerRow(
        keeps="moments",
        moments=1,
        bits=32,
        step="in place",
        transformers="lion_32bit",
        library=BITSANDBYTES,
        in_eight_bits="lion_8bit",
        cpu_form=True,
    ),
    "lion_8bit": OptimizerRow(keeps="moments", moments=1, bits=8, step="in place", transformers="lion_8bit", library=BITSANDBYTES),
    "paged_lion_8bit": OptimizerRow(
        keeps="moments", moments=1, bits=8, step="in place", paged=True, transformers="paged_lion_8bit", library=BITSANDBYTES
    ),
    "muon": OptimizerRow(keeps="matrix momentum", step="orthogonal", transformers=None),
    "sgd": OptimizerRow(keeps="nothing", step="foreach sgd", transformers="sgd"),
    "galore": OptimizerRow(
        keeps="projected moments", step="projected", transformers=None, library=GALORE, settings=Galore, in_eight_bits="galore_8bit"
    ),
    "galore_8bit": OptimizerRow(keeps="projected moments", bits=8, step="projected", transformers=None, library=GALORE, settings=Galore),
    "apollo": OptimizerRow(keeps="projected moments", step="projected", transformers=None, library=APOLLO, settings=Apollo),
    "badam": OptimizerRow(keeps="moments of one layer", step="one layer", transformers=None, settings=Badam),
}


def optimizer_row(name: str) -> OptimizerRow:
    """Raises MissingRow where the table has none."""
    return row_of(OPTIMIZERS, "optim", name, "OPTIMIZERS in conf/optimizers.py")


def optimizer_types() -> Mapping[str, type[Optim]]:
    """The type of the settings of each optimizer."""
    return {name: row.settings for name, row in OPTIMIZERS.items()}
