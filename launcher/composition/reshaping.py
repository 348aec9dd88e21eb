"""On a resume, the samples of a step may pass in other portions: other micro-batches, or other ranks. They stay the same samples, in the same order.

A step takes the next training.effective_batch samples of the permutation of its epoch, and its loss is a mean over all of them. So the portions only
change the order in which numbers are added.
"""

from collections.abc import Collection, Mapping
from typing import Any

from conf.ranks import ranks
from conf.schema import Composed, Run
from conf.shardings import sharding_row
from conf.stages import bound_by
from launcher.errors import ConfigError

PORTIONS = ("training.micro_batch", "cluster.nodes", "cluster.ranks_per_node")
RESHAPING = (*PORTIONS, "training.accumulation", "training.gradient_checkpointing")


def with_portions(given: Mapping[str, Any], changed: Collection[str]) -> dict[str, Any]:
    """The given keys of the portions where one of them is changed; training.accumulation follows from the others where it is not given."""
    chosen = {key: value for key, value in given.items() if key in RESHAPING} if any(key in RESHAPING for key in changed) else {}
    return {"training.accumulation": None, **chosen} if any(key in chosen for key in PORTIONS) else chosen


def portions(run: Composed) -> tuple[int | None, int | None, int | None]:
    """(micro-batch, nodes, ranks of a node)."""
    return run.training.micro_batch, run.cluster.nodes, run.cluster.ranks_per_node


def refuse_reshaping(before: Run, after: Composed) -> None:
    """Raises ConfigError where other portions would change what is learned, or where the checkpoints cannot be read by as many ranks."""
    if portions(before) == portions(after):
        return
    bound = bound_by(before.stage)
    if bound:
        raise ConfigError(f"{said(before, after)}: stage={before.stage.name} {bound}, so its numbers would change. Resume without these keys.")
    if before.data.streaming:
        raise ConfigError(
            f"{said(before, after)}: data.streaming=true gives each rank its own share of the records, so the order of samples would change. "
            "Resume without these keys."
        )
    per_node = after.cluster.ranks_per_node
    if per_node is not None and per_node * after.cluster.nodes != ranks(before) and sharding_row(before.sharding.name).engine == "deepspeed":
        raise ConfigError(
            f"{said(before, after)}: each of {ranks(before)} ranks saved its own part of the states under sharding={before.sharding.name}, and "
            f"DeepSpeed reads them on {ranks(before)} ranks only. Resume on {ranks(before)} ranks, or start a new run from the weights. "
            "Only runs under ddp and fsdp2 go on with another number of ranks."
        )


def said(before: Run, after: Composed) -> str:
    pairs = zip(PORTIONS, portions(before), portions(after), strict=True)
    return ", ".join(f"{key} {old} -> {new}" for key, old, new in pairs if old != new)


def reshaping_lines(before: Run, after: Run) -> list[str]:
    """What plan and train say of other portions before anything starts."""
    if portions(before) == portions(after):
        return []
    return [
        f"batch: {described(before)} -> {described(after)}. Each step takes the same {after.training.effective_batch} samples in the same order; "
        "its loss differs by the order in which numbers are added. Dropout draws other random numbers, and a last step of an epoch that is not full "
        "may be filled up with other samples."
    ]


def described(run: Run) -> str:
    count = ranks(run)
    return f"micro-batch {run.training.micro_batch} x {count} rank{'s' * (count != 1)} x accumulation {run.training.accumulation}"
