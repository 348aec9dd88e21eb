"""Single changes that make a settled run need less memory, as functions from Run to Run; and the overrides that lead from one run to another."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from conf.choices import choice, has_file
from conf.committed import KEPT_WHOLE
from conf.optimizers import optimizer_row
from conf.ranks import ranks
from conf.regimes import regime_row
from conf.schema import Dpo, Node, Optim, Qlora, Regime, Run, SettledNode, Sharding
from conf.shardings import SHARDINGS, sharding_row
from conf.stages import Loss, stage_row
from launcher.facts.node import settled_node
from launcher.memory.stages import copies_of
from launcher.rules.pairs import can_fuse

LARGEST_NODE = 8  # GPUs


@dataclass(frozen=True)
class Move:
    axis: str  # two moves on one axis exclude each other
    cost: int  # orders proposals; only comparisons matter
    note: str  # what it costs the user
    apply: Callable[[Run], Run]


def carried(group: str, name: str, before: Regime | Optim) -> Any:
    """Another choice that keeps what the user set of the fields that both have."""
    target = choice(group, name)
    shared = {field.name for field in fields(target)} & {field.name for field in fields(before)} - {"name"}
    return replace(target, **{key: getattr(before, key) for key in shared})


# One function per axis: the moves that lead away from `run`, cheapest first.


def loss_moves(run: Run) -> list[Move]:
    if stage_row(run.stage.name).loss is not Loss.NEXT_TOKEN:
        return []
    best = "fused" if run.node.gpus and can_fuse(run) else "chunked"
    if run.training.loss in ("fused", best):
        return []
    if best == "chunked":
        return [Move("loss", 1, "the same loss in chunks of tokens; the output head is computed twice", lambda run: trained(run, loss="chunked"))]
    return [Move("loss", 1, "the same loss from a fused kernel; needs the gpu extra (liger-kernel)", lambda run: trained(run, loss="fused"))]


def reference_moves(run: Run) -> list[Move]:
    """Only one of the stages with a reference can use it before training."""
    if not isinstance(run.stage, Dpo) or not copies_of(run).reference:
        return []

    def beforehand(run: Run) -> Run:
        return replace(run, stage=replace(run.stage, precompute_reference=True)) if isinstance(run.stage, Dpo) else run

    return [Move("reference", 2, "reference log-probabilities are computed once, before training, and no copy of the reference stays", beforehand)]


def attention_moves(run: Run) -> list[Move]:
    if run.training.attention != "eager":
        return []
    return [Move("attention", 1, "the same attention without its matrix in memory", lambda run: trained(run, attention="sdpa"))]


def checkpointing_moves(run: Run) -> list[Move]:
    if run.training.gradient_checkpointing is True:
        return []
    return [
        Move("checkpointing", 2, "about a third more compute: activations are computed twice", lambda run: trained(run, gradient_checkpointing=True))
    ]


def rank_moves(run: Run) -> list[Move]:
    """On a CPU node every rank is one more copy in the same memory."""
    if run.node.gpus != 0 or run.cluster.ranks_per_node == 1:
        return []
    return [Move("ranks", 3, "one process instead of several: slower", lambda run: replace(run, cluster=replace(run.cluster, ranks_per_node=1)))]


def optimizer_moves(run: Run) -> list[Move]:
    def to(name: str) -> Callable[[Run], Run]:
        return lambda run: replace(run, optim=carried("optim", name, run.optim))

    row = optimizer_row(run.optim.name)
    fused = [Move("optimizer", 1, "the same optimizer from a fused kernel", to(row.fused))] if row.fused and run.node.gpus else []
    eight_bit = [Move("optimizer", 8, "states in 8 bits: a slightly different optimizer", to(row.in_eight_bits))] if row.in_eight_bits else []
    return [*fused, *eight_bit]


def disk_moves(run: Run) -> list[Move]:
    if run.checkpoint.keep <= KEPT_WHOLE:
        return []
    note = f"only {KEPT_WHOLE} checkpoints are kept"
    return [Move("disk", 1, note, lambda run: replace(run, checkpoint=replace(run.checkpoint, keep=KEPT_WHOLE)))]


def evaluation_moves(run: Run) -> list[Move]:
    if run.evaluation.micro_batch == 1:
        return []
    note = "evaluation sample by sample: the same figures, slower"
    return [Move("evaluation", 1, note, lambda run: replace(run, evaluation=replace(run.evaluation, micro_batch=1)))]


def worker_moves(run: Run) -> list[Move]:
    if run.training.dataloader_workers == 0:
        return []
    return [Move("workers", 2, "every rank makes its own batches: steps may wait for them", lambda run: trained(run, dataloader_workers=0))]


def sharding_moves(run: Run) -> list[Move]:
    """Those that save more than the run's own, and whose YAML file is built in."""

    def to(name: str) -> Callable[[Run], Run]:
        target: Sharding = choice("sharding", name)
        return lambda run: replace(run, sharding=target)

    saved = sharding_row(run.sharding.name).saving
    useful = [
        Move("sharding", row.cost, row.note, to(name))
        for name, row in SHARDINGS.items()
        if row.cost is not None and row.saving > saved and (run.node.gpus or not row.offloads) and has_file("sharding", name)
    ]
    return sorted(useful, key=lambda move: move.cost)


def regime_moves(run: Run) -> list[Move]:
    def quantised(bits: int) -> Callable[[Run], Run]:
        """Packed weights have no 8-bit floating point products."""
        return lambda run: trained(replace(run, regime=replace(carried("regime", "qlora", run.regime), bits=bits, dequantised=False)), fp8=False)

    bits = run.regime.bits if isinstance(run.regime, Qlora) else 16
    adapters = (Move("regime", 32, "adapters learn instead of the weights, best with about ten times the learning rate", to_lora),)
    quantising = [
        Move("regime", 44 - fewer, f"adapters on a base of {fewer} bits: costs some quality", quantised(fewer)) for fewer in (8, 4, 2) if fewer < bits
    ]
    packed = Move("regime", 3, "the same values of the base, dequantised at every use: slower", quantised(bits))
    kept = isinstance(run.regime, Qlora) and run.regime.dequantised
    return [*((packed,) if kept else ()), *(() if regime_row(run.regime.name).learns == "an adapter" else adapters), *quantising]


def to_lora(run: Run) -> Run:
    return replace(run, regime=carried("regime", "lora", run.regime))


def cutoff_moves(run: Run) -> list[Move]:
    def shorter(divisor: int) -> Callable[[Run], Run]:
        return lambda run: replace(run, data=replace(run.data, cutoff=run.data.cutoff // divisor))

    note = "changes the data: longer samples lose their end"
    return [Move("cutoff", 126 + divisor, note, shorter(divisor)) for divisor in (2, 4, 8) if run.data.cutoff // divisor >= 64]


def node_moves(run: Run) -> list[Move]:
    """More GPUs of the same kind, then the largest ones."""
    gpus = run.node.gpus
    if not gpus:
        return []

    def more(count: int) -> Callable[[Run], Run]:
        return lambda run: on_node(run, settled_node(run.node, count))

    def other(name: str, count: int) -> Callable[[Run], Run]:
        target: Node = choice("node", name)
        return lambda run: on_node(run, settled_node(replace(target, host_memory=None if run.node.auto else run.node.host_memory), count))

    counts = [] if run.node.auto else [count for count in (2, 4, 8) if count > gpus]
    larger = [name for name in ("h100_80", "h200_141") if choice("node", name).gpu_memory > run.node.capacity]
    return [
        *(Move("node", 256 + count, f"a node of {count} such GPUs", more(count)) for count in counts),
        *(Move("node", 300 + index, f"a node with {name}", other(name, gpus)) for index, name in enumerate(larger)),
        *(Move("node", 320, f"a node of {LARGEST_NODE} {name}", other(name, LARGEST_NODE)) for name in larger[-1:] if gpus < LARGEST_NODE),
    ]


def on_node(run: Run, node: SettledNode) -> Run:
    return replace(run, node=node, cluster=replace(run.cluster, ranks_per_node=node.gpus))


def trained(run: Run, **values: Any) -> Run:
    return replace(run, training=replace(run.training, **values))


def micro_batches(run: Run) -> list[int]:
    """Those that keep the effective batch on the run's ranks, largest first, none above the run's own or below what the stage needs."""
    share, rest = divmod(run.training.effective_batch, ranks(run))
    least = stage_row(run.stage.name).least
    return [] if rest else [size for size in range(min(run.training.micro_batch, share), least - 1, -1) if share % size == 0]


def with_micro_batch(run: Run, size: int) -> Run:
    """The same effective batch from micro-batches of `size`; evaluation uses no larger ones."""
    passes = run.training.effective_batch // (size * ranks(run))
    smaller = size < run.training.micro_batch
    evaluation = replace(run.evaluation, micro_batch=min(size, run.evaluation.micro_batch)) if smaller else run.evaluation
    return replace(trained(run, micro_batch=size, accumulation=passes), evaluation=evaluation)


# From runs to overrides.


def overrides_between(before: Run, after: Run) -> tuple[str, ...]:
    """What to append to the overrides of `before` to describe `after`."""
    return tuple(text for field in fields(Run) for text in group_overrides(field.name, getattr(before, field.name), getattr(after, field.name)))


def group_overrides(group: str, before: Any, after: Any) -> list[str]:
    if before == after:
        return []
    if isinstance(after, str):
        return [f"{group}={after}"]
    if type(before) is type(after) and vars(before).get("name") == vars(after).get("name"):
        changed = [field.name for field in fields(after) if getattr(before, field.name) != getattr(after, field.name)]
        return [f"{group}.{key}={as_override(getattr(after, key))}" for key in changed]
    target = choice(group, after.name)
    keys = [field.name for field in fields(after) if field.name != "name"]
    kept = [key for key in keys if getattr(after, key) != getattr(target, key) or key in deviations(group, before)]
    return [f"{group}={after.name}", *(f"{group}.{key}={as_override(getattr(after, key))}" for key in kept)]


def deviations(group: str, before: Any) -> set[str]:
    """Fields that the user may have overridden: such an override outlives a change of the choice."""
    if (isinstance(before, Node) and before.auto) or not has_file(group, before.name):
        return set()
    default = choice(group, before.name)
    return {field.name for field in fields(default) if getattr(before, field.name) != getattr(default, field.name)}


def as_override(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return "[" + ",".join(as_override(item) for item in value) + "]"
    return str(value)
