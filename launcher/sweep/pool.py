"""Runs permitted points over shared GPUs until all have ended, until too many have failed, or until somebody asks to stop."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from launcher.errors import RegimenError
from launcher.launch.supervise import StopRequests
from launcher.sweep import processes
from launcher.sweep.ahead import Ends, have_room
from launcher.sweep.points import Permitted, Result, one_line
from launcher.sweep.processes import Running
from launcher.sweep.schedule import Request, Resources, left_over, startable, startable_ahead
from launcher.words import plural

POLL_SECONDS = 0.2
End = Literal["done", "asked to stop", "too many failures"]


class Watcher(Protocol):
    """Who hears what happens to the points."""

    def started(self, running: Running) -> None: ...
    def ended(self, result: Result) -> None: ...
    def say(self, text: str) -> None: ...
    def update(self, running: Sequence[Running], waiting: int) -> None:
        """Called several times a second while points run."""
        ...

    def stop_asked(self) -> bool:
        """Whether somebody asked in another way than by a signal."""
        ...


@dataclass(frozen=True)
class Limits:
    jobs: int | None = None  # points at the same time; None: as many as there is room for
    failures: int | None = None  # no other point starts after so many failed; None: all start
    ahead: float = 0.0  # seconds before GPUs are expected to be free at which the next point begins to load its libraries


class Pool:
    """The points of one batch; `failed`: how many points of earlier batches did."""

    def __init__(self, resources: Resources, watcher: Watcher, limits: Limits = Limits(), failed: int = 0) -> None:
        self.resources, self.watcher, self.limits, self.failed = resources, watcher, limits, failed
        self.waiting: list[Permitted] = []
        self.running: list[Running] = []
        self.held: list[Running] = []  # started, and not released before their GPUs are free
        self.begun: dict[int, Permitted] = {}  # of all that were started, by the numbers of the points
        self.ends = Ends()

    def run(self, points: Sequence[Permitted]) -> End:
        """Run every point, and say why where some were not started or not finished."""
        self.waiting, heard, requests, asked = [*points], 0, StopRequests(), False
        try:
            while self.running or self.held or (self.waiting and not heard and not self.too_many_failed()):
                asked = asked or self.watcher.stop_asked()
                if requests.count + asked > heard:
                    heard = requests.count + asked
                    self.pass_on(heard)
                if not heard and not self.too_many_failed():
                    self.release_what_fits()
                    self.start_what_fits()
                    self.start_ahead()
                elif not heard:
                    self.give_up_held()
                self.watcher.update([*self.running, *self.held], len(self.waiting))
                time.sleep(POLL_SECONDS)
                self.collect()
        finally:
            requests.restore()
        for permitted in self.waiting:
            self.watcher.ended(Result(permitted.point, "not started", run_dir=permitted.run_dir))
        if heard or requests.count:
            return "asked to stop"
        return "too many failures" if self.too_many_failed() else "done"

    def too_many_failed(self) -> bool:
        return self.limits.failures is not None and self.failed >= self.limits.failures

    def free(self) -> Resources:
        everybody = [(running.gpus, self.begun[running.point.number].shares) for running in (*self.running, *self.held)]
        alone, shared = ([one for one in everybody if bool(one[1]) == sharing] for sharing in (False, True))
        return left_over(self.resources, [gpus for gpus, _ in alone], [(gpus[0], needed) for gpus, needed in shared])

    def room(self) -> int:
        """How many more points may be started."""
        return len(self.waiting) if self.limits.jobs is None else max(0, self.limits.jobs - len(self.running) - len(self.held))

    def requests(self) -> list[Request]:
        return [
            Request(permitted.point.number, permitted.gpus, bytes=permitted.shares, seconds=permitted.judged.expectations.seconds)
            for permitted in self.waiting
        ]

    def start_what_fits(self) -> None:
        for placement in startable(self.requests(), self.free())[: self.room()]:
            self.start(self.taken(placement.number), placement.gpus)

    def start_ahead(self) -> None:
        """Points whose GPUs are about to be free load their libraries meanwhile, where the host memory holds them beside those that run."""
        if not self.limits.ahead or not self.waiting or self.resources.places > 1:
            return
        ending = {gpu for running in self.ends.before(time.time() + self.limits.ahead, self.running) for gpu in running.gpus}
        ending -= {gpu for held in self.held for gpu in held.gpus}
        for placement in startable_ahead(self.requests(), self.free().gpus, ending, self.resources)[: self.room()]:
            beside = [self.begun[running.point.number] for running in (*self.running, *self.held)]
            candidate = next(permitted for permitted in self.waiting if permitted.point.number == placement.number)
            if have_room([*beside, candidate], self.resources):
                self.start(self.taken(placement.number), placement.gpus, held=True)

    def release_what_fits(self) -> None:
        busy = {gpu for running in self.running for gpu in running.gpus}
        for held in [held for held in self.held if not busy & set(held.gpus)]:
            self.held.remove(held)
            self.running.append(processes.release(held))
            self.watcher.started(self.running[-1])

    def give_up_held(self) -> None:
        """No other point begins any more, so those that wait for their GPUs end."""
        for held in self.held:
            if not held.run_dir.stop.exists():
                processes.ask_to_stop(held)

    def taken(self, number: int) -> Permitted:
        permitted = next(permitted for permitted in self.waiting if permitted.point.number == number)
        self.waiting.remove(permitted)
        return permitted

    def start(self, permitted: Permitted, gpus: tuple[str, ...], held: bool = False) -> None:
        environment = processes.point_environment(os.environ, gpus, threads_of(permitted, self.resources))
        try:
            running = processes.start(permitted, gpus, environment, held)
        except RegimenError as error:
            self.end(Result(permitted.point, "failed", run_dir=permitted.run_dir, cause=one_line(str(error))))
            return
        self.begun[permitted.point.number] = permitted
        if held:
            self.held.append(running)
            return
        self.running.append(running)
        self.watcher.started(running)

    def collect(self) -> None:
        over = [running for running in (*self.running, *self.held) if running.process.poll() is not None]
        self.running, self.held = ([running for running in some if running not in over] for some in (self.running, self.held))
        for running in over:
            self.end(processes.result_of(running))

    def end(self, result: Result) -> None:
        self.failed += result.state == "failed"
        self.watcher.ended(result)

    def pass_on(self, times: int) -> None:
        """Hand a request to stop to every running point."""
        self.watcher.say(
            f"Stopping {plural(len(self.running) + len(self.held), 'running point')}. Each saves a checkpoint first."
            if times == 1
            else "Ending the ranks without a checkpoint."
        )
        for running in (*self.running, *self.held):
            processes.ask_to_stop(running) if times == 1 else processes.insist(running)


def threads_of(permitted: Permitted, resources: Resources) -> int:
    """Threads of each rank: the cores are shared by as many ranks as can run at the same time."""
    ranks = permitted.judged.run.cluster.ranks_per_node
    neighbours = len(resources.gpus) * resources.places if permitted.gpus else ranks * resources.slots
    return max(1, (os.cpu_count() or 1) // neighbours)
