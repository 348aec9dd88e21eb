"""Which running points end soon, and whether the next ones may load their libraries meanwhile."""

import time
from collections.abc import Iterable, Sequence

from launcher.launch.progress import Tail
from launcher.sweep.points import Permitted
from launcher.sweep.processes import Running
from launcher.sweep.schedule import Resources


class Ends:
    """When the running points are expected to end, as their ranks say at each logged step."""

    def __init__(self) -> None:
        self.tails: dict[int, Tail] = {}
        self.ends: dict[int, float] = {}  # seconds since the epoch, by the numbers of the points

    def before(self, moment: float, running: Iterable[Running]) -> list[Running]:
        """Those that are expected to have made their last step by then; `moment`: seconds since the epoch."""
        points = {one.point.number: one for one in running}
        self.tails = {number: self.tails.get(number) or Tail(one.run_dir, from_start=not one.again) for number, one in points.items()}
        for number, tail in self.tails.items():
            for entry in tail.new_entries():
                if "eta_seconds" in entry:
                    self.ends[number] = float(entry.get("time", time.time())) + entry["eta_seconds"]
        self.ends = {number: end for number, end in self.ends.items() if number in points}
        return [points[number] for number, end in self.ends.items() if end <= moment]


def have_room(permitted: Sequence[Permitted], resources: Resources) -> bool:
    """Whether the host memory holds these points at the same time. Each was judged on the share that belongs to its GPUs."""
    shares = [(one.judged.run.node.host_memory, one.gpus) for one in permitted]
    if any(memory is None or not gpus for memory, gpus in shares):
        return False
    whole = min((memory or 0) * len(resources.gpus) // gpus for memory, gpus in shares)
    return sum(one.judged.estimate.host for one in permitted) <= whole
