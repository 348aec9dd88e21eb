"""A checkpoint of any sharding, read as named parameters: each weight and each state of its optimizer, flat, in consecutive parts.

Files are mapped, not read: what a rank does not copy of a part never leaves the disk. The layouts are those that the libraries write:

- plain ranks (transformers): `optimizer.pt`, whose states are numbered in the order of the optimizer's groups, and `*.safetensors`;
- FSDP2 (torch.distributed.checkpoint): each rank has rows of each tensor, and an index says where they lie. Earlier versions of regimen wrote whole
  tensors by name: `optimizer.bin` and `pytorch_model_fsdp.bin`;
- ZeRO-1 and 2 (DeepSpeed): each rank has a partition of each flat group; `param_slice_mappings` says where a parameter lies in it;
- ZeRO-3 (DeepSpeed): each rank has an equal part of each parameter, the last one filled up, one after the other in the order of `param_shapes`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainers.checkpoints.pickles import INDEX, read_index
from trainers.checkpoints.shards import FOLDERS, MODEL, OPTIMIZER, WHOLE_FILES

WEIGHT = "weight"  # among the keys of a parameter's parts; the others are those of its optimizer's state
STEP = "step"
PLAIN, SPLIT, ZERO = "torch", "fsdp2", "deepspeed"  # as the engines of conf/shardings.py


@dataclass(frozen=True)
class Layout:
    """How a checkpoint is divided into files: only the same layout is loaded by the library that wrote it."""

    engine: str
    stage: int = 0  # of ZeRO
    world: int = 1  # ranks that hold parts; of plain ranks, whose files are whole, and of FSDP2, whose files any number of ranks reads, always 1
    offloads: bool = False  # DeepSpeed's optimizer on the CPU writes its states in a form of its own


class Part(Protocol):
    """Consecutive elements of a flattened tensor: one of a mapped file, or what is read when it is asked for."""

    def numel(self) -> int: ...

    def __getitem__(self, elements: slice) -> Tensor: ...


@dataclass(frozen=True)
class Piece:
    """What torch.save has written somewhere in a file of shards."""

    path: Path
    offset: int
    length: int
    elements: int

    def numel(self) -> int:
        return self.elements

    def __getitem__(self, elements: slice) -> Tensor:
        return self.read().reshape(-1)[elements]

    def read(self) -> Tensor:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            found: Tensor = torch.load(BytesIO(file.read(self.length)), map_location="cpu", weights_only=True)
        return found


@dataclass
class SavedParameter:
    """`parts`: of each key the flattened tensor in consecutive parts. `step`: how many steps its optimizer has made; None where it counts none."""

    parts: dict[str, list[Part]] = field(default_factory=dict)
    step: float | None = None

    def add(self, key: str, part: Part) -> None:
        self.parts.setdefault(key, []).append(part)

    def elements(self, key: str, begin: int, count: int) -> Iterator[tuple[int, Tensor]]:
        """(position behind `begin`, elements) of the flattened tensor from `begin` on, `count` in all.

        Raises:
            ValueError: where the parts hold fewer.
        """
        at, end = 0, begin + count
        for part in self.parts[key]:
            first, last = max(begin, at), min(end, at + part.numel())
            if first < last:
                yield first - begin, part[first - at : last - at]
            at += part.numel()
        if at < end:
            raise ValueError(f"the checkpoint holds {at} elements of a tensor that has {end} at least. It belongs to another model.")


Saved = dict[str, SavedParameter]


def layout_of(checkpoint: Path) -> Layout:
    """By the files that are there.

    Raises:
        ValueError: for files of no known layout.
    """
    if (checkpoint / WHOLE_FILES[OPTIMIZER]).is_file() or (checkpoint / FOLDERS[OPTIMIZER] / INDEX).is_file():
        return Layout(SPLIT)
    if (checkpoint / "optimizer.pt").is_file():
        return Layout(PLAIN)
    states, [*models] = zero_files(checkpoint), sorted(checkpoint.glob("global_step*/*_model_states.pt"))
    if not states or not models:
        raise ValueError(f"{checkpoint} holds no states of an optimizer in a form that is known here. Start a new run from its weights.")
    optimization = mapped(models[0])["ds_config"]["zero_optimization"]
    return Layout(ZERO, int(optimization["stage"]), len(states), bool((optimization.get("offload_optimizer") or {}).get("device") == "cpu"))


def read_saved(checkpoint: Path, order: Sequence[str], saved_as: Mapping[str, str]) -> Saved:
    """Every parameter that learned, by its name.

    Args:
        order: names of what learns, as the optimizer's groups have them. Only files of plain ranks need it.
        saved_as: by the name of a parameter the one under which its weight is saved beside them.

    Raises:
        KeyError: for a parameter that the checkpoint does not hold.
    """
    layout = layout_of(checkpoint)
    if layout.engine == PLAIN:
        return read_plain(checkpoint, order, saved_as)
    if layout.engine == SPLIT:
        return read_whole(checkpoint) if (checkpoint / WHOLE_FILES[OPTIMIZER]).is_file() else read_split(checkpoint)
    return read_zero3(checkpoint) if layout.stage == 3 else read_zero2(checkpoint)


def read_plain(checkpoint: Path, order: Sequence[str], saved_as: Mapping[str, str]) -> Saved:
    weights: dict[str, Tensor] = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        weights |= load_file(path)
    optimizer, found = mapped(checkpoint / "optimizer.pt"), Saved()
    for number, name in enumerate(order):
        found[name] = with_states(weights[saved_as.get(name, name)], optimizer["state"].get(number, {}))
    return found


def read_split(checkpoint: Path) -> Saved:
    found = Saved()
    for (_, name), parts in pieces(checkpoint / FOLDERS[MODEL]).items():
        found[name] = SavedParameter({WEIGHT: parts})
    for (_, kind, *which), parts in pieces(checkpoint / FOLDERS[OPTIMIZER]).items():
        if kind != "state":
            continue
        name, key = which
        if key == STEP:
            found[name].step = float(parts[0].read())
        else:
            found[name].parts[key] = parts
    return found


def pieces(folder: Path) -> dict[tuple[Any, ...], list[Any]]:
    """Of each tensor of a distributed checkpoint, by its path in the dictionary that was saved, the rows of each rank."""
    index, found = read_index(folder / INDEX), dict[tuple[Any, ...], list[Any]]()
    places = {(which.fqn, tuple(which.offset or ())): place for which, place in index.storage_data.items()}
    for name, described in index.state_dict_metadata.items():
        chunks = sorted(getattr(described, "chunks", ()), key=lambda chunk: tuple(chunk.offsets))
        at = [(places[name, tuple(chunk.offsets)], math.prod(chunk.sizes)) for chunk in chunks]
        if at:
            found[index.planner_data[name]] = [Piece(folder / place.relative_path, place.offset, place.length, count) for place, count in at]
    return found


def read_whole(checkpoint: Path) -> Saved:
    weights, states = mapped(checkpoint / WHOLE_FILES[MODEL]), mapped(checkpoint / WHOLE_FILES[OPTIMIZER])["state"]
    return {name: with_states(weight, states.get(name, {})) for name, weight in weights.items()}


def with_states(weight: Tensor, state: Mapping[str, Any]) -> SavedParameter:
    found = SavedParameter({WEIGHT: [weight.reshape(-1)]}, step_in(state))
    for key, value in elementwise(state).items():
        found.add(key, value.reshape(-1))
    return found


def read_zero2(checkpoint: Path) -> Saved:
    found = Saved()
    for path in zero_files(checkpoint):
        states = mapped(path)["optimizer_state_dict"]
        optimizer = states["base_optimizer_state"]
        for group, weights, lying in zip(
            optimizer["param_groups"], states["single_partition_of_fp32_groups"], states["param_slice_mappings"], strict=True
        ):
            state = optimizer["state"].get(group["params"][0], {})
            for name, place in lying.items():
                add_slice(found.setdefault(name, SavedParameter()), weights, state, place.start, place.numel)
    return found


def read_zero3(checkpoint: Path) -> Saved:
    found, files = Saved(), zero_files(checkpoint)
    [model, *_] = sorted(checkpoint.glob("global_step*/zero_pp_rank_0_*_model_states.pt"))
    shapes = {name: shape for group in mapped(model)["param_shapes"] for name, shape in group.items()}
    for rank, path in enumerate(files):
        states = mapped(path)["optimizer_state_dict"]
        flat, optimizer = states["fp32_flat_groups"], states["optimizer_state_dict"]["state"]
        group = at = 0
        for name, shape in shapes.items():
            whole = shape.numel()
            share = -(-whole // len(files))
            if at == flat[group].numel():
                group, at = group + 1, 0
            held = max(0, min(share, whole - rank * share))  # the rest fills up
            add_slice(found.setdefault(name, SavedParameter()), flat[group], optimizer.get(group, {}), at, held)
            at += share
    return found


def add_slice(parameter: SavedParameter, weights: Tensor, state: Mapping[str, Any], begin: int, count: int) -> None:
    parameter.step = step_in(state)
    for key, value in {WEIGHT: weights, **elementwise(state)}.items():
        parameter.add(key, value.reshape(-1)[begin : begin + count])


def elementwise(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """What an optimizer keeps of every element."""
    return {key: value for key, value in state.items() if isinstance(value, Tensor) and key != STEP}


def step_in(state: Mapping[str, Any]) -> float | None:
    return float(state[STEP]) if STEP in state else None


def zero_files(checkpoint: Path) -> list[Path]:
    """Of the states of each rank, in the order of the ranks."""

    def rank(path: Path) -> int:
        return int(path.name.partition("zero_pp_rank_")[2].partition("_")[0])

    return sorted(checkpoint.glob("global_step*/*zero_pp_rank_*_optim_states.pt"), key=rank)


def mapped(path: Path) -> Any:
    return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
