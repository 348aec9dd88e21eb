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


def moves(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether another sharding is given: then its own keys may be given with it."""
    return bool(given.get(SHARDING, recorded[SHARDING]["name"]) != recorded[SHARDING]["name"])


def with_sharding(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded values with the defaults of the sharding that is given, where that is another one.

    Raises:
        ConfigError: for one that is not built in.
    """
    if not moves(recorded, given):
        return dict(recorded)
    name = given[SHARDING]
    if name not in SHARDINGS or not has_file(SHARDING, name):
        raise ConfigError(f"sharding={name} cannot be chosen on a resume. Choose one of: {', '.join(SHARDINGS)}.")
    return {**recorded, SHARDING: asdict(choice(SHARDING, name))}


def refuse_reshaping(before: Run, after: Composed) -> None:
    """Raises ConfigError where other portions would change what is learned, or where the states cannot be laid out anew."""
    if relays(before, after):
        refuse_relaying(before, after)
    if portions(before) == portions(after):
        return
    refuse_uneven(before, after)
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


def refuse_uneven(before: Run, after: Composed) -> None:
    """Raises ConfigError where the samples of a step, which stay, do not fill whole passes. What is left open is counted later."""
    batch, nodes, per_node, size = before.training.effective_batch, after.cluster.nodes, after.cluster.ranks_per_node, after.training.micro_batch
    if per_node is None or size is None or batch % (nodes * per_node * size) == 0:
        return
    who = plural(nodes * per_node, "rank")
    if batch % (nodes * per_node) == 0:
        who = f"{who} with training.micro_batch={size}"
        fitting = f"training.micro_batch={one_of(divisors(batch // (nodes * per_node)))}"
    elif batch % nodes == 0:
        fitting = f"cluster.ranks_per_node={one_of(divisors(batch // nodes))}"
    else:
        fitting = f"cluster.nodes={before.cluster.nodes}"
    raise ConfigError(f"{said(before, after)}: each step of this run has {plural(batch, 'sample')}, which {who} cannot share evenly. Set {fitting}.")


def divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def one_of(numbers: list[int]) -> str:
    """1, 2 or 4."""
    return " or ".join(filter(None, [", ".join(map(str, numbers[:-1])), str(numbers[-1])]))


def said(before: Run, after: Composed) -> str:
    pairs = [(SHARDING, before.sharding.name, after.sharding.name), *zip(PORTIONS, portions(before), portions(after), strict=True)]
    return ", ".join(f"{key} {old} -> {new}" for key, old, new in pairs if old != new)


def reshaping_lines(before: Run, after: Run, saved: bool = True) -> list[str]:
    """What plan and train say of other portions, and of another layout, before anything starts; `saved`: there is a checkpoint to go on from."""
    layouts, found = [f"{run.sharding.name} on {plural(ranks(run), 'rank')}" for run in (before, after)], []
    if relays(before, after):
        states = (
            "The weights and the states of the optimizer are the same numbers, laid out anew. "
            "Losses differ by rounding, because another library adds and casts in another order."
        )
        none = "The run has no checkpoint yet, so it starts at step 1, and nothing is laid out anew."
        found.append(f"sharding: {' -> '.join(layouts)}. {states if saved else none}")
    if described(before) != described(after):
        found.append(
            f"batch: {described(before)} -> {described(after)}. Each step takes the same {after.training.effective_batch} samples in the same order; "
            "its loss differs by the order in which numbers are added. Dropout draws other random numbers, and a last step of an epoch that is not "
            "full may be filled up with other samples."
        )
    return found


def described(run: Run) -> str:
    return f"micro-batch {run.training.micro_batch} x {plural(ranks(run), 'rank')} x accumulation {run.training.accumulation}"
