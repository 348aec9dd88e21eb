"""Measures the host memory that this process holds and that nothing can drop, by phase of the run.

Anonymous and shared pages (proc_pid_status(5): RssAnon, RssShmem; pinned blocks are one or the other) are what a control group's limit really counts.
Pages of mapped files, libraries and safetensors, are recorded apart: the kernel drops them when memory is short. It keeps a high-water mark of all
kinds together only (VmHWM), so a thread looks at the present sizes.
"""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

STATUS = Path("/proc/self/status")
SECONDS = 0.05  # between two looks, of some 0.05 ms each; weights and states need longer to be allocated


class Held(NamedTuple):
    """Bytes."""

    anonymous: int
    shared: int
    files: int

    @property
    def fixed(self) -> int:
        """What cannot be dropped."""
        return self.anonymous + self.shared


def held() -> Held:
    """What this process holds now; data workers are processes of their own."""
    return read(STATUS.read_text(encoding="ascii"))


def read(status: str) -> Held:
    """In some containers the kernel does not report kinds. All resident memory then counts, which is rather too much than too little."""
    sizes = {name: 1024 * int(number) for name, number in re.findall(r"^(\w+):\s+(\d+) kB$", status, re.MULTILINE)}
    if "RssAnon" not in sizes:
        return Held(sizes["VmRSS"], 0, 0)
    return Held(sizes["RssAnon"], sizes["RssShmem"], sizes["RssFile"])


class HostPeaks:
    """The fullest look at each phase, and at all together."""

    def __init__(self, look: Callable[[], Held] = held) -> None:
        self.look = look
        self.fullest = look()
        self.by_phase: dict[str, Held] = {}
        self.lock = threading.Lock()

    def watch(self) -> None:
        """Until the process ends."""
        threading.Thread(target=self.keep_looking, name="host-memory", daemon=True).start()

    def keep_looking(self) -> None:
        while True:
            self.note()
            time.sleep(SECONDS)

    def note(self) -> None:
        now = self.look()
        with self.lock:
            self.fullest = max(self.fullest, now, key=lambda one: one.fixed)

    def end(self, phase: str) -> None:
        """What was the fullest since the last border belongs to `phase`, which ends here."""
        self.note()
        with self.lock:
            self.by_phase[phase] = max(self.by_phase.get(phase, self.fullest), self.fullest, key=lambda one: one.fixed)
            self.fullest = self.look()

    @property
    def highest(self) -> Held:
        return max((*self.by_phase.values(), self.fullest), key=lambda one: one.fixed)
