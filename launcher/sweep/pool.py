"""Runs permitted points over shared GPUs until all have ended, until too many have failed, or until somebody asks to stop."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from launcher.errors import RegimenError
from launcher.launch.supervise import StopRequests
from launcher.sweep import processes
from launcher.sweep.points import Permitted, Result, one_line
from launcher.sweep.processes import Running
from launcher.sweep.schedule import Request, Resources, left_over, startable
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


class Pool:
    """The points of one batch; `failed`: how many points of earlier batches did."""

    def __init__(self, resources: Resources, watcher: Watcher, limits: Limits = Limits(), failed: int = 0) -> None:
        self.resources, self.watcher, self.limits, self.failed = resources, watcher, limits, failed
        self.waiting: list[Permitted] = []
        self.running: list[Running] = []

    def run(self, points: Sequence[Permitted]) -> End:
        """Run every point, and say why where some were not started or not finished."""
        self.waiting, heard, requests, asked = [*points], 0, StopRequests(), False
        try:
            while self.running or (self.waiting and not heard and not self.too_many_failed()):
                asked = asked or self.watcher.stop_asked()
                if requests.count + asked > heard:
                    heard = requests.count + asked
                    self.pass_on(heard)
                if not heard and not self.too_many_failed():
                    self.start_what_fits()
                self.watcher.update(self.running, len(self.waiting))
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

    def start_what_fits(self) -> None:
        by_number = {permitted.point.number: permitted for permitted in self.waiting}
        free = left_over(self.resources, [running.gpus for running in self.running])
        room = len(by_number) if self.limits.jobs is None else self.limits.jobs - len(self.running)
        for placement in startable([Request(number, permitted.gpus) for number, permitted in by_number.items()], free)[: max(0, room)]:
            permitted = by_number[placement.number]
            self.waiting.remove(permitted)
            self.start(permitted, placement.gpus)

    def start(self, permitted: Permitted, gpus: tuple[str, ...]) -> None:
        environment = processes.point_environment(os.environ, gpus, threads_of(permitted, self.resources))
        try:
            running = processes.start(permitted, gpus, environment)
        except RegimenError as error:
            self.end(Result(permitted.point, "failed", run_dir=permitted.run_dir, cause=one_line(str(error))))
            return
        self.running.append(running)
        self.watcher.started(running)

    def collect(self) -> None:
        over = [running for running in self.running if running.process.poll() is not None]
        self.running = [running for running in self.running if running not in over]
        for running in over:
            self.end(processes.result_of(running))

    def end(self, result: Result) -> None:
        self.failed += result.state == "failed"
        self.watcher.ended(result)

    def pass_on(self, times: int) -> None:
        """Hand a request to stop to every running point."""
        self.watcher.say(
            f"Stopping {plural(len(self.running), 'running point')}. Each saves a checkpoint first."
            if times == 1
            else "Ending the ranks without a checkpoint."
        )
        for running in self.running:
            processes.ask_to_stop(running) if times == 1 else processes.insist(running)


def threads_of(permitted: Permitted, resources: Resources) -> int:
    """Threads of each rank: the cores are shared by as many ranks as can run at the same time."""
    ranks = permitted.judged.run.cluster.ranks_per_node
    neighbours = len(resources.gpus) if permitted.gpus else ranks * resources.slots
    return max(1, (os.cpu_count() or 1) // neighbours)
