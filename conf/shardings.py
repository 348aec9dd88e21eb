"""One row for each sharding: what it splits, which engine does it, and what it saves and costs. Its settings are its YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from conf.rows import row_of
from conf.schema import Ddp, Fsdp, Sharding, Zero

Engine = Literal["torch", "deepspeed", "fsdp2"]
Part = Literal["states", "gradients", "weights"]

GIB = 2**30

# The type of the settings of everything that an engine can do.
SETTINGS: dict[Engine, type[Sharding]] = {"torch": Ddp, "deepspeed": Zero, "fsdp2": Fsdp}


@dataclass(frozen=True)
class ShardingRow:
    engine: Engine  # what trains; with the precision it decides how an element is kept (launcher/memory/weights/dtypes.py)
    splits: tuple[Part, ...]  # over the ranks; every rank holds all of the rest
    # Bytes of one GPU that NCCL and the engine hold beside the CUDA context: 2 x H200 over NVLink, DeepSpeed 0.19.8
    # (results/memory/h200x2_from_files.jsonl: 1.566, 2.041 to 2.043 and 1.760 to 1.762 GiB with the context; full training and adapters alike).
    nccl: int
    # Seconds that the engine takes in each micro-batch for one tensor that it puts into a bucket: what the rates of links do not explain, nor what
    # the host does meanwhile (launcher/timing/links.py). Full training of a 1B llama, 146 tensors, in bf16 at micro-batch 4 x 2048 gave 39.8 thousand
    # tokens/s on one H200, and on two 37.4, 35.3, 35.1 and 25.4 a GPU for ddp, zero1, zero2 and zero3.
    hook: float
    saving: int  # orders shardings by the memory that they spare; a proposal goes up in it
    offloads: bool = False  # keeps optimizer states in host memory
    cost: int | None = None  # orders proposals; None: never proposed
    note: str = ""  # what a proposal costs the user


SHARDINGS: dict[str, ShardingRow] = {
    "ddp": ShardingRow("torch", splits=(), nccl=int(0.28 * GIB), hook=0.0, saving=0),
    "zero1": ShardingRow("deepspeed", splits=("states",), nccl=int(0.756 * GIB), hook=8e-5, saving=1),
    "zero2": ShardingRow(
        "deepspeed",
        splits=("states", "gradients"),
        nccl=int(0.756 * GIB),
        hook=9e-5,
        saving=2,
        cost=16,
        note="gradients and states are split over the ranks: a little more communication",
    ),
    "zero3": ShardingRow(
        "deepspeed",
        splits=("states", "gradients", "weights"),
        nccl=int(0.475 * GIB),
        hook=0.0,
        saving=3,
        cost=24,
        note="weights are gathered for every layer: slower steps, a tenth to a fifth measured on two GPUs",
    ),
    "zero2_offload": ShardingRow(
        "deepspeed",
        splits=("states", "gradients"),
        offloads=True,
        nccl=int(0.756 * GIB),
        hook=9e-5,
        saving=4,
        cost=64,
        note="states in host memory: every step waits for the CPU",
    ),
    "zero3_offload": ShardingRow(
        "deepspeed",
        splits=("states", "gradients", "weights"),
        offloads=True,
        nccl=int(0.475 * GIB),
        hook=0.0,
        saving=5,
        cost=72,
        note="weights and states in host memory: far slower",
    ),
    "fsdp2": ShardingRow(
        "fsdp2",
        splits=("states", "gradients", "weights"),
        nccl=int(0.28 * GIB),
        hook=0.0,  # two H200s kept 93 % of the rate of one, which its gathers and reductions explain
        saving=3,
        cost=28,
        note="weights are gathered for every layer: slower steps",
    ),
}


def sharding_row(name: str) -> ShardingRow:
    """Raises MissingRow where the table has none."""
    return row_of(SHARDINGS, "sharding", name, "SHARDINGS in conf/shardings.py")


def sharding_types() -> Mapping[str, type[Sharding]]:
    """The type of the settings of each sharding."""
    return {name: SETTINGS[row.engine] for name, row in SHARDINGS.items()}
