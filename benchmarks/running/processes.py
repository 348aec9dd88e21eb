"""Processes side by side on the GPUs of one machine: who may start where and when, and how long one may take."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

TIMED_OUT = 124  # as coreutils' timeout answers
POLL_SECONDS = 0.5
PASSES = 12  # later ones that may pass one that waits for a large part of a GPU


@dataclass(eq=False)
class Ticket:
    """A place in the queue: it needs `size` bytes on each of `gpus` GPUs."""

    size: int
    gpus: int = 1
    passed: int = 0
    devices: tuple[str, ...] = field(default=())


class Room:
    """Free bytes of every GPU, and free places for processes; the first in the queue that fits enters."""

    def __init__(self, devices: Sequence[str], size: int, places: int) -> None:
        self.size, self.free, self.places = size, dict.fromkeys(devices, size), places
        self.everyone = places
        self.waiting: list[Ticket] = []
        self.open, self.changed = True, threading.Condition()

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Until it is, or the room is closed."""
        while self.open and not ready():
            time.sleep(POLL_SECONDS)

    def queue(self, size: int, gpus: int = 1) -> Ticket:
        """Raises ValueError where it could never enter, because the wait would have no end."""
        if size > self.size or gpus > len(self.free) or gpus > self.everyone:
            there = f"{len(self.free)} GPU(s) with room for {self.size / 2**30:.1f} GiB each, and {self.everyone} process(es)"
            raise ValueError(f"{gpus} x {size / 2**30:.1f} GiB cannot fit: there are {there}")
        ticket = Ticket(size, gpus)
        with self.changed:
            self.waiting.append(ticket)
        return ticket

    @contextmanager
    def entered(self, ticket: Ticket) -> Iterator[tuple[str, ...]]:
        """The GPUs that the holder may use inside; none once the room is closed."""
        with self.changed:
            self.changed.wait_for(lambda: not self.open or self.may_enter(ticket))
            if self.open:
                self.enter(ticket)
        try:
            yield ticket.devices
        finally:
            self.leave(ticket)

    def may_enter(self, ticket: Ticket) -> bool:
        earlier = self.waiting[: self.waiting.index(ticket)]
        return bool(self.fitting(ticket)) and not any(self.fitting(other) or other.passed >= PASSES for other in earlier)

    def fitting(self, ticket: Ticket) -> tuple[str, ...]:
        """The emptiest GPUs, if they are empty enough."""
        emptiest = sorted(self.free, key=lambda device: -self.free[device])[: ticket.gpus]
        fits = ticket.gpus <= self.places and all(self.free[device] >= ticket.size for device in emptiest)
        return tuple(emptiest) if fits else ()

    def enter(self, ticket: Ticket) -> None:
        for other in self.waiting[: self.waiting.index(ticket)]:
            other.passed += 1
        ticket.devices = self.fitting(ticket)
        self.waiting.remove(ticket)
        self.take(ticket, 1)

    def leave(self, ticket: Ticket) -> None:
        with self.changed:
            self.take(ticket, -1)
            ticket.devices = ()

    def take(self, ticket: Ticket, sign: int) -> None:
        for device in ticket.devices:
            self.free[device] -= sign * ticket.size
            self.places -= sign
        self.changed.notify_all()

    def close(self) -> None:
        """Nobody else enters."""
        with self.changed:
            self.open = False
            self.changed.notify_all()

    def close_after(self, seconds: float) -> None:
        closing = threading.Timer(seconds, self.close)
        closing.daemon = True
        closing.start()


def run_limited(command: Sequence[str], environment: dict[str, str], seconds: float) -> tuple[int, str]:
    """Exit code and output; after `seconds` the whole process group is killed, and what it started dies with it (prctl(2))."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return TIMED_OUT, f"{output}\nkilled after {seconds:.0f} s"
    return process.returncode, output


def environment_for(devices: Sequence[str], concurrent: int) -> dict[str, str]:
    """This process' own, on those GPUs, with its share of the cores; on a CPU, variables of GPUs are not set."""
    threads = max(1, (os.cpu_count() or 1) // max(1, concurrent))
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if any(devices) else {}
    return {**os.environ, "OMP_NUM_THREADS": str(threads), **visible}


def in_place_of_trainers(argv: Sequence[str], *script: str) -> tuple[str, ...]:
    """The command of a run with a script of these benchmarks where it says `-m trainers`."""
    at = list(argv).index("trainers") - 1
    return (*argv[:at], *script, *argv[at + 2 :])
