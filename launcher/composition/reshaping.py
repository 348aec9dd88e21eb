"""On a resume, the samples of a step may pass in other portions: other micro-batches, or other ranks. They stay the same samples, in the same order.

A step takes the next training.effective_batch samples of the permutation of its epoch, and its loss is a mean over all of them. So the portions only
change the order in which numbers are added. The sharding may be another one, too: trainers/checkpoints/relaid.py lays the states out anew.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from conf.choices import choice, has_file
from conf.ranks import ranks
from conf.relaying import bound_to_layout
from conf.schema import Composed, Run, Zero
from conf.shardings import SHARDINGS, sharding_row
from conf.stages import stage_row
from launcher.errors import ConfigError
from launcher.words import plural

PORTIONS = ("training.micro_batch", "cluster.nodes", "cluster.ranks_per_node")
SHARDING = "sharding"
RESHAPING = (*PORTIONS, "training.accumulation", "training.gradient_checkpointing")


def with_portions(given: Mapping[str, Any], changed: Collection[str]) -> dict[str, Any]:
    """The given keys of the portions where one of them is changed; training.accumulation follows from the others where it is not given."""
    chosen = {key: value for key, value in given.items() if key in RESHAPING} if any(key in RESHAPING for key in changed) else {}
    return {"training.accumulation": None, **chosen} if any(key in chosen for key in PORTIONS) else chosen


def portions(run: Composed) -> tuple[int | None, int | None, int | None]:
    """(micro-batch, nodes, ranks of a node)."""
    return run.training.micro_batch, run.cluster.nodes, run.cluster.ranks_per_node


def with_sharding(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded values with the defaults of the sharding that is given, where that is another one.

    Raises:
        ConfigError: for one that is not built in.
    """
    name = given.get(SHARDING, recorded[SHARDING]["name"])
    if name == recorded[SHARDING]["name"]:
        return dict(recorded)
    if name not in SHARDINGS or not has_file(SHARDING, name):
        raise ConfigError(f"sharding={name} cannot be chosen on a resume. Choose one of: {', '.join(SHARDINGS)}.")
    return {**recorded, SHARDING: asdict(choice(SHARDING, name))}


def refuse_reshaping(before: Run, after: Composed) -> None:
    """Raises ConfigError where other portions would change what is learned, or where the states cannot be laid out anew."""
    if relays(before, after):
        refuse_relaying(before, after)
    if portions(before) == portions(after):
        return
    bound = stage_row(before.stage.name).bound
    if bound:
        raise ConfigError(f"{said(before, after)}: stage={before.stage.name} {bound}, so its numbers would change. Resume without these keys.")
    if before.data.streaming:
        raise ConfigError(
            f"{said(before, after)}: data.streaming=true gives each rank its own share of the records, so the order of samples would change. "
            "Resume without these keys."
        )


def relays(before: Run, after: Composed) -> bool:
    """Whether states are laid out anew: under another sharding, and where each rank of ZeRO saved its part and there are other ranks now."""
    if before.sharding.name != after.sharding.name:
        return True
    per_node = after.cluster.ranks_per_node
    return isinstance(before.sharding, Zero) and per_node is not None and per_node * after.cluster.nodes != ranks(before)


def refuse_relaying(before: Run, after: Composed) -> None:
    offloads = next((run.sharding.name for run in (before, after) if sharding_row(run.sharding.name).offloads), None)
    why = bound_to_layout(before) or (
        f"sharding={offloads} keeps states in host memory, and they have not been laid out anew yet" if offloads else ""
    )
    if why:
        raise ConfigError(
            f"{said(before, after)}: {why}. Resume under sharding={before.sharding.name} on {plural(ranks(before), 'rank')}, "
            "or start a new run from the weights."
        )


def said(before: Run, after: Composed) -> str:
    pairs = [(SHARDING, before.sharding.name, after.sharding.name), *zip(PORTIONS, portions(before), portions(after), strict=True)]
    return ", ".join(f"{key} {old} -> {new}" for key, old, new in pairs if old != new)


def reshaping_lines(before: Run, after: Run) -> list[str]:
    """What plan and train say of other portions, and of another layout, before anything starts."""
    layouts, found = [f"{run.sharding.name} on {plural(ranks(run), 'rank')}" for run in (before, after)], []
    if relays(before, after):
        found.append(
            f"sharding: {' -> '.join(layouts)}. The weights and the states of the optimizer are the same numbers, laid out anew. "
            "Losses differ by rounding, because another library adds and casts in another order."
        )
    if portions(before) != portions(after):
        found.append(
            f"batch: {described(before)} -> {described(after)}. Each step takes the same {after.training.effective_batch} samples in the same order; "
            "its loss differs by the order in which numbers are added. Dropout draws other random numbers, and a last step of an epoch that is not "
            "full may be filled up with other samples."
        )
    return found


def described(run: Run) -> str:
    return f"micro-batch {run.training.micro_batch} x {plural(ranks(run), 'rank')} x accumulation {run.training.accumulation}"
