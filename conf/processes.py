"""Whose a process is: names that outlive a pid's reuse, children that do not outlive their parents. Linux alone (prctl(2), proc(5))."""

import ctypes
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SUPERVISOR = "REGIMEN_SUPERVISOR"  # every process of a run finds here whose it is: PID:START of the process that supervises it
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)  # loaded before any fork


@dataclass(frozen=True)
class Identity:
    pid: int
    start: int  # clock ticks since boot, from /proc/PID/stat: tells a reused pid from the process that was meant

    def __str__(self) -> str:
        return f"{self.pid}:{self.start}"

    def lives(self) -> bool:
        return process_start(self.pid) == self.start != 0


def identity_of(pid: int) -> Identity:
    return Identity(pid, process_start(pid))


def identity_from(text: str) -> Identity:
    """The identity that was written as PID:START.

    Raises:
        ValueError: for any other text.
    """
    pid, start = text.split(":")
    return Identity(int(pid), int(start))


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on: [0] state, [1] parent, [11] and [12] CPU ticks, [19] start; empty where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rsplit(")", 1)[1].split()  # the command name may hold spaces and brackets


def process_start(pid: int) -> int:
    """Start time of a process in clock ticks; 0 when there is no such process, or only what its parent has not read of it."""
    fields = stat_of(pid)
    return 0 if not fields or fields[0] in "ZX" else int(fields[19])


def descends_from(pid: int, ancestor: Identity) -> bool:
    """Whether the parents of `pid` lead to the ancestor. An orphan's lead to the process that adopted it, and so not there."""
    while pid > 1:
        fields = stat_of(pid)
        pid = int(fields[1]) if fields else 0
        if pid == ancestor.pid:
            return process_start(pid) == ancestor.start
    return False


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """In a child of `parent` that does nothing yet: be sent `number` when the parent's thread that forked it ends.

    A parent that died before the kernel knew sends nothing any more, so the child looks for it afterwards, and ends where it is gone.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def die_with_ancestors(environment: Mapping[str, str]) -> None:
    """In a process that others than us started, and from which SUPERVISOR leads to us: as die_with_parent, also where every parent has died."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if SUPERVISOR in environment and not descends_from(os.getpid(), identity_from(environment[SUPERVISOR])):
        os.kill(os.getpid(), signal.SIGKILL)


class ForkedChildren:
    """Children that this process forks (data workers) die with it too: a fork does not inherit that.

    Only what the main thread forks: the kernel means the end of a thread, and other threads end earlier.
    """

    def __init__(self) -> None:
        self.parent, self.by_main = 0, False
        os.register_at_fork(before=self.note, after_in_child=self.die_too)

    def note(self) -> None:
        self.parent, self.by_main = os.getpid(), threading.current_thread() is threading.main_thread()

    def die_too(self) -> None:
        if self.by_main:
            die_with_parent(self.parent)


def supervised_by(supervisor: Identity) -> Iterator[int]:
    """The pids of all processes that this supervisor's runs have started and that live: ranks, data workers, compilers.

    Each has inherited SUPERVISOR; what another user runs, or what has changed its environment's memory, cannot be read and is left out.
    """
    return (int(path.name) for path in Path("/proc").glob("[0-9]*") if is_supervised_by(int(path.name), supervisor))


def is_supervised_by(pid: int, supervisor: Identity) -> bool:
    try:
        return f"{SUPERVISOR}={supervisor}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or belongs to somebody else
        return False


def kill_supervised_by(supervisor: Identity) -> list[int]:
    """SIGKILL to each of them; the pids. A handle keeps a pid from being reused between the look and the signal."""
    killed = []
    for pid in list(supervised_by(supervisor)):
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if is_supervised_by(pid, supervisor):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                killed.append(pid)
        except ProcessLookupError:
            continue
        finally:
            os.close(handle)
    return killed
