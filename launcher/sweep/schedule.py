"""Which waiting points start now, and on which GPUs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import inf

PATIENCE = 8  # requests that came later may begin before one that waits


@dataclass(frozen=True)
class Cluster:
    """Instead of Resources: Slurm gives each point what its job asks for."""


@dataclass(frozen=True)
class Resources:
    """What the points of a sweep share."""

    gpus: tuple[str, ...]  # as CUDA_VISIBLE_DEVICES names them
    slots: int  # points at the same time that use no GPU
    places: int = 1  # points that may share a GPU
    bytes: int = 0  # of each GPU, for points that share it
    shared: tuple["Shared", ...] = ()  # GPUs that are shared already, and not among `gpus`


@dataclass(frozen=True)
class Shared:
    """What is left of a GPU that points share."""

    gpu: str
    places: int
    bytes: int


@dataclass(frozen=True)
class Request:
    number: int
    gpus: int  # 0: a slot
    passed: int = 0  # how many that came later began before it; the points of a sweep come together, and nobody passes them
    first: bool = False  # somebody wants it to begin before all others
    bytes: int = 0  # of its one GPU, which it shares with others; 0: with nobody
    seconds: float | None = None  # predicted; None: not known

    @property
    def due(self) -> bool:
        """From now on no other begins on a GPU before it."""
        return self.first or self.passed >= PATIENCE


@dataclass(frozen=True)
class Placement:
    number: int
    gpus: tuple[str, ...]


def startable(waiting: Sequence[Request], free: Resources) -> list[Placement]:
    """The largest first, in the order of their numbers; smaller ones fill what is left. `sizes` says what is large.

    Nobody waits for ever. Requests that came together all begin, since they are finitely many and GPUs become free as runs end. Where others
    come later, PATIENCE of them pass one that waits; then it is due, and GPUs that become free are kept for it: it waits at most until the
    runs that have GPUs then have ended. Those that are due begin in the order of their numbers, after one that somebody put first.
    """
    gpus, slots, shared = list(free.gpus), free.slots, list(free.shared)
    placements = []
    for request in in_order(waiting):
        beside = roomiest(shared, request.bytes)
        if beside is not None:
            shared.remove(beside)
            shared.append(less(beside, request.bytes))
            placements.append(Placement(request.number, (beside.gpu,)))
            continue
        if request.gpus > len(gpus) or (request.gpus == 0 and slots == 0):
            if request.due:
                gpus, slots, shared = ([], slots, []) if request.gpus else (gpus, 0, shared)
            continue
        placements.append(Placement(request.number, tuple(gpus[: request.gpus])))
        if request.bytes:
            shared.append(less(Shared(gpus[0], free.places, free.bytes), request.bytes))
        gpus, slots = gpus[request.gpus :], slots - (request.gpus == 0)
    return placements


def roomiest(shared: Sequence[Shared], needed: int) -> Shared | None:
    """The shared GPU with the most bytes left, where a point that needs so many has a place on it; `needed` is 0 of one that shares with nobody."""
    found = [one for one in shared if needed and one.places and one.bytes >= needed]
    return max(found, key=lambda one: one.bytes, default=None)


def less(shared: Shared, needed: int) -> Shared:
    return replace(shared, places=shared.places - 1, bytes=shared.bytes - needed)


def in_order(waiting: Sequence[Request]) -> list[Request]:
    """In this order the requests are looked at: those that are due, then the largest first."""
    size = sizes(waiting)
    return sorted(waiting, key=lambda request: (not request.first, not request.due, 0.0 if request.due else -size[request.number], request.number))


def sizes(waiting: Sequence[Request]) -> dict[int, float]:
    """By number: GPU seconds where the time of every request is predicted, else GPUs.

    The largest product of width and time first leaves the least idle at the end: longest processing time first (Graham, SIAM J. Appl. Math. 17,
    1969), for jobs of several machines. `benchmarks/speed/pool_bound.py` measures both orders.
    """
    seconds = [request.seconds or 0.0 for request in waiting]
    if all(0 < time < inf for time in seconds):
        return {request.number: max(request.gpus, 1) * time for request, time in zip(waiting, seconds, strict=True)}
    return {request.number: request.gpus for request in waiting}


def startable_ahead(waiting: Sequence[Request], free: Sequence[str], ending: Collection[str], everything: Resources) -> list[Placement]:
    """Which points may be started and held until GPUs are free that are expected to be soon; `ending`: these GPUs. A point without GPUs never is."""
    soon = tuple(gpu for gpu in everything.gpus if gpu in free or gpu in ending)
    placements = startable([request for request in waiting if request.gpus], Resources(soon, 0))
    return [placement for placement in placements if not set(placement.gpus) <= set(free)]


def left_over(all_of_it: Resources, taken: Sequence[tuple[str, ...]], sharing: Sequence[tuple[str, int]] = ()) -> Resources:
    """What is free while points hold `taken`, each a tuple of GPUs or, empty, a slot, and others share: (their GPU, their bytes)."""
    busy = {gpu for gpus in taken for gpu in gpus} | {gpu for gpu, _ in sharing}
    slots = sum(1 for gpus in taken if not gpus)
    held = {gpu: [needed for other, needed in sharing if other == gpu] for gpu in dict.fromkeys(gpu for gpu, _ in sharing)}
    shared = tuple(Shared(gpu, all_of_it.places - len(needs), all_of_it.bytes - sum(needs)) for gpu, needs in held.items())
    return replace(all_of_it, gpus=tuple(gpu for gpu in all_of_it.gpus if gpu not in busy), slots=all_of_it.slots - slots, shared=shared)
