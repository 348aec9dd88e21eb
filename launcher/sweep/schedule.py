"""Which waiting points start now, and on which GPUs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """Instead of Resources: Slurm gives each point what its job asks for."""


@dataclass(frozen=True)
class Resources:
    """What the points of a sweep share."""

    gpus: tuple[str, ...]  # as CUDA_VISIBLE_DEVICES names them
    slots: int  # points at the same time that use no GPU


@dataclass(frozen=True)
class Request:
    number: int
    gpus: int  # 0: a slot


@dataclass(frozen=True)
class Placement:
    number: int
    gpus: tuple[str, ...]


def startable(waiting: Sequence[Request], free: Resources) -> list[Placement]:
    """The widest first, in the order of their numbers; narrower ones fill what is left.

    Nobody waits for ever: where a point ends there is room for the widest that waits, since no wider one is left.
    """
    gpus, slots = list(free.gpus), free.slots
    placements = []
    for request in sorted(waiting, key=lambda request: (-request.gpus, request.number)):
        if request.gpus > len(gpus) or (request.gpus == 0 and slots == 0):
            continue
        placements.append(Placement(request.number, tuple(gpus[: request.gpus])))
        gpus, slots = gpus[request.gpus :], slots - (request.gpus == 0)
    return placements


def startable_ahead(waiting: Sequence[Request], free: Sequence[str], ending: Collection[str], everything: Resources) -> list[Placement]:
    """Which points may be started and held until GPUs are free that are expected to be soon; `ending`: these GPUs. A point without GPUs never is."""
    soon = tuple(gpu for gpu in everything.gpus if gpu in free or gpu in ending)
    placements = startable([request for request in waiting if request.gpus], Resources(soon, 0))
    return [placement for placement in placements if not set(placement.gpus) <= set(free)]


def left_over(all_of_it: Resources, taken: Sequence[tuple[str, ...]]) -> Resources:
    """What is free while points hold `taken`, each a tuple of GPUs or, empty, a slot."""
    busy = {gpu for gpus in taken for gpu in gpus}
    slots = sum(1 for gpus in taken if not gpus)
    return Resources(tuple(gpu for gpu in all_of_it.gpus if gpu not in busy), all_of_it.slots - slots)
