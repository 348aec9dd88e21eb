"""Runs permitted points over shared GPUs until all have ended, or until somebody asks to stop."""

import os
import time
from collections.abc import Callable, Sequence

from launcher.errors import RegimenError
from launcher.launch.supervise import StopRequests
from launcher.sweep import processes
from launcher.sweep.points import Permitted, Result, one_line
from launcher.sweep.processes import Running
from launcher.sweep.schedule import Request, Resources, left_over, startable
from launcher.words import plural

POLL_SECONDS = 0.2


class Pool:
    """The points of one batch; `started`, `ended` and `say` are called with what happens."""

    def __init__(self, resources: Resources, started: Callable[[Running], None], ended: Callable[[Result], None], say: Callable[[str], None]) -> None:
        self.resources, self.started, self.ended, self.say = resources, started, ended, say
        self.waiting: list[Permitted] = []
        self.running: list[Running] = []

    def run(self, points: Sequence[Permitted]) -> bool:
        """Run every point; false when it was asked to stop before the last one had ended."""
        self.waiting, heard, requests = [*points], 0, StopRequests()
        try:
            while self.running or (self.waiting and not requests.count):
                if requests.count > heard:
                    heard = requests.count
                    self.pass_on(heard)
                if not heard:
                    self.start_what_fits()
                time.sleep(POLL_SECONDS)
                self.collect()
        finally:
            requests.restore()
        for permitted in self.waiting:
            self.ended(Result(permitted.point, "not started"))
        return not requests.count

    def start_what_fits(self) -> None:
        by_number = {permitted.point.number: permitted for permitted in self.waiting}
        free = left_over(self.resources, [running.gpus for running in self.running])
        for placement in startable([Request(number, permitted.gpus) for number, permitted in by_number.items()], free):
            permitted = by_number[placement.number]
            self.waiting.remove(permitted)
            self.start(permitted, placement.gpus)

    def start(self, permitted: Permitted, gpus: tuple[str, ...]) -> None:
        environment = processes.point_environment(os.environ, gpus, threads_of(permitted, self.resources))
        try:
            running = processes.start(permitted, gpus, environment)
        except RegimenError as error:
            self.ended(Result(permitted.point, "failed", cause=one_line(str(error))))
            return
        self.running.append(running)
        self.started(running)

    def collect(self) -> None:
        over = [running for running in self.running if running.process.poll() is not None]
        self.running = [running for running in self.running if running not in over]
        for running in over:
            self.ended(processes.result_of(running))

    def pass_on(self, times: int) -> None:
        """Hand a request to stop to every running point."""
        self.say(
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
