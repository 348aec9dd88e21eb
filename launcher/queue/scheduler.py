"""Begins the runs of the queue as GPUs become free, and records how they end. It outlives every terminal, and its runs outlive it.

Killed at any moment it loses nothing: each run is a process of its own, which records itself in the journal before its ranks start, and the next
scheduler takes up what it finds there. One is started by every command about the queue, and by each run of the queue that ends.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from conf.journal import VIA
from launcher.command import launcher_environment
from launcher.errors import RunLocked
from launcher.facts.node import visible_gpus
from launcher.launch import lock, status
from launcher.queue import entries as queue
from launcher.queue.entries import Entry, QueueDir
from launcher.sweep.points import one_line
from launcher.sweep.processes import point_environment
from launcher.sweep.schedule import Request, Resources, left_over, startable
from launcher.sweep.session import resources_here

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Beginning:
    """A run whose process was started, and which has not recorded itself yet."""

    number: int
    on: tuple[str, ...]
    process: "subprocess.Popen[bytes]"


def ensure_running(place: QueueDir, site: Mapping[str, str]) -> None:
    """Start a scheduler where there is work and none is at it. One that is not needed ends at once."""
    if owner_lives(place) or not any(entry.state in ("waiting", "running") for entry in queue.entries(place)):
        return
    own = {name: value for name, value in site.items() if name != VIA}  # it begins runs of every origin
    start(place, ("queue-serve",), launcher_environment(own), "/")


def start(place: QueueDir, words: Sequence[str], environment: Mapping[str, str], working_folder: str) -> "subprocess.Popen[bytes]":
    """A launcher that outlives this process; what it says goes to the scheduler's log."""
    with place.log.open("ab") as log:
        return subprocess.Popen(
            (sys.executable, "-m", "launcher", *words),
            env=dict(environment),
            cwd=working_folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def owner_lives(place: QueueDir) -> bool:
    """An owner that cannot be judged from here counts as alive: two schedulers would give one GPU to two runs."""
    try:
        owner = lock.read_owner(place.lockable)
    except RunLocked:
        return lock.kernel_lock_held(place.lockable.lock) is True
    return owner is not None and lock.standing(place.lockable, owner) != "dead"


def serve(place: QueueDir) -> int:
    """Until nothing waits and nothing runs. A second scheduler ends at once."""
    held = lock.this_process()
    try:
        lock.acquire(place.lockable, held)
    except RunLocked:
        return 0
    try:
        scheduler = Scheduler(place)
        while scheduler.turn():
            time.sleep(POLL_SECONDS)
    finally:
        lock.release(place.lockable, held)
    ensure_running(place, os.environ)  # for what was added between the last look and the release
    return 0


class Scheduler:
    """Remembers only which runs it has just begun; everything else is in the journal and in the folders of the runs."""

    def __init__(self, place: QueueDir) -> None:
        self.place = place
        self.beginning: list[Beginning] = []
        self.begun: list[subprocess.Popen[bytes]] = []  # waited for, so that none stays a zombie

    def turn(self) -> bool:
        """One look at everything: ends are recorded, and what fits begins. Whether anything is left."""
        self.begun = [process for process in self.begun if process.poll() is None]
        for entry in self.in_state("running"):
            self.look_at(entry)
        self.settle_beginning()
        begins = {one.number for one in self.beginning}
        waiting = [entry for entry in self.in_state("waiting") if entry.number not in begins]
        if waiting:
            resources = resources_here(None, queue.slots(self.place))
            held = [entry.on for entry in self.in_state("running")] + [one.on for one in self.beginning]
            for number, on in decided(waiting, free_now(resources, held, busy_gpus())):
                self.begin(next(entry for entry in waiting if entry.number == number), on, resources)
        return bool(self.in_state("waiting") or self.in_state("running"))

    def in_state(self, state: str) -> list[Entry]:
        return [entry for entry in queue.entries(self.place) if entry.state == state]

    def look_at(self, entry: Entry) -> None:
        """Record the end of a run that has one."""
        assert entry.run_dir is not None
        if not entry.run_dir.run_yaml.is_file():
            queue.end(self.place, entry.number, "failed", f"{entry.run_dir.path} was removed")
            return
        now = status.status_of(entry.run_dir)
        if now.state in ("finished", "stopped", "failed"):
            queue.end(self.place, entry.number, now.state, one_line(now.message))
        elif now.state == "dead":
            queue.end(self.place, entry.number, "dead", f"its process is gone; go on with: regimen queue add resume={entry.run_dir.path}")

    def begin(self, entry: Entry, on: tuple[str, ...], resources: Resources) -> None:
        threads = max(1, (os.cpu_count() or 1) // max(1, len(resources.gpus) if on else resources.slots))
        words = ("queue-run", str(entry.number), "--on", ",".join(on), "--of", str(len(resources.gpus)))
        try:
            site = {**point_environment(os.environ, on, threads), **({VIA: entry.via} if entry.via else {})}
            process = start(self.place, words, site, entry.working_folder)
        except OSError as error:
            queue.end(self.place, entry.number, "refused", f"{entry.working_folder}: {error.strerror}")
            return
        self.beginning.append(Beginning(entry.number, on, process))

    def settle_beginning(self) -> None:
        """Those that have recorded themselves are runs like every other. One that might not begin after all (its process ended with 0) waits on."""
        states = {entry.number: entry.state for entry in queue.entries(self.place)}
        for one in self.beginning:
            if states[one.number] != "waiting":
                self.begun.append(one.process)
            elif one.process.poll():
                queue.end(self.place, one.number, "failed", f"it could not be begun; {self.place.log} says why")
        self.beginning = [one for one in self.beginning if states[one.number] == "waiting" and one.process.poll() is None]


def decided(waiting: Sequence[Entry], free: Resources) -> list[tuple[int, tuple[str, ...]]]:
    """Which entries begin now, and on which GPUs."""
    return [(placement.number, placement.gpus) for placement in startable([request_of(entry) for entry in waiting], free)]


def request_of(entry: Entry) -> Request:
    return Request(entry.number, entry.gpus, entry.passed, entry.first)


def free_now(resources: Resources, held: Sequence[tuple[str, ...]], busy: Mapping[str, str]) -> Resources:
    """What neither a run of the queue holds nor another process uses."""
    left = left_over(resources, held)
    return replace(left, gpus=tuple(gpu for gpu in left.gpus if gpu not in busy))


def busy_gpus() -> dict[str, str]:
    """The GPUs of which a process holds memory, as CUDA_VISIBLE_DEVICES names them, and which processes."""
    found, _ = visible_gpus()
    return {gpu.uuid if gpu.mig else str(gpu.index): ", ".join(gpu.users) for gpu in found if gpu.users}


def reason(entry: Entry, waiting: Sequence[Entry], free: Resources, busy: Mapping[str, str]) -> str:
    """Why an entry waits, in words. `busy`: GPUs that others use."""
    if entry.gpus == 0:
        return "waits for the end of a run on the CPU" if free.slots == 0 else "begins next"
    due = sorted((other for other in waiting if request_of(other).due and other.gpus), key=lambda other: (not other.first, other.number))
    if due and due[0].number != entry.number and due[0].gpus > len(free.gpus):
        return f"waits behind {due[0].number}, before which no other begins"
    if entry.gpus <= len(free.gpus):
        return "begins next"
    used = "".join(f"; GPU {gpu} is in use: {who}" for gpu, who in busy.items())
    are = "is" if len(free.gpus) == 1 else "are"
    return f"waits for {entry.gpus} GPU{'s' * (entry.gpus > 1)}, and {len(free.gpus)} {are} free{used}"
