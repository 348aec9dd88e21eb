"""Which waiting points start now, and on which GPUs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

PATIENCE = 8  # requests that came later may begin before one that waits


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
    passed: int = 0  # how many that came later began before it; the points of a sweep come together, and nobody passes them
    first: bool = False  # somebody wants it to begin before all others

    @property
    def due(self) -> bool:
        """From now on no other begins on a GPU before it."""
        return self.first or self.passed >= PATIENCE


@dataclass(frozen=True)
class Placement:
    number: int
    gpus: tuple[str, ...]


def startable(waiting: Sequence[Request], free: Resources) -> list[Placement]:
    """The widest first, in the order of their numbers; narrower ones fill what is left.

    Nobody waits for ever. Of requests that came together the widest begin first, so where one of them ends there is room for the next. Where
    others come later, PATIENCE of them pass one that waits; then it is due, and GPUs that become free are kept for it: it waits at most until the
    runs that have GPUs then have ended. Those that are due begin in the order of their numbers, after one that somebody put first.
    """
    gpus, slots = list(free.gpus), free.slots
    placements = []
    for request in sorted(waiting, key=urgency):
        if request.gpus > len(gpus) or (request.gpus == 0 and slots == 0):
            if request.due:
                gpus, slots = ([], slots) if request.gpus else (gpus, 0)
            continue
        placements.append(Placement(request.number, tuple(gpus[: request.gpus])))
        gpus, slots = gpus[request.gpus :], slots - (request.gpus == 0)
    return placements


def urgency(request: Request) -> tuple[bool, bool, int, int]:
    """By this the requests are looked at, the least first."""
    return (not request.first, not request.due, 0 if request.due else -request.gpus, request.number)


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
