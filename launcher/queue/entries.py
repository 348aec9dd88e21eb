"""The queue of a user on a machine: its journal, and the entries that it adds up to."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.journal import VIA
from conf.records import is_time, is_whole, read_lines
from conf.run_dir import RunDir, cut_torn_line
from conf.secrets import masked_in
from launcher.composition.recorded import split_resume
from launcher.errors import ConfigError, DiskError
from launcher.launch.places import state_folder

ADDED, REMOVED, FIRST, PASSED, STARTED, ENDED = "added", "removed", "first", "passed", "started", "ended"
SLOTS = "slots"  # an event of the queue itself, whose entry is 0
OVER = ("finished", "stopped", "failed", "refused", "dead", "removed")


@dataclass(frozen=True)
class QueueDir:
    path: Path

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def log(self) -> Path:
        """What the scheduler says."""
        return self.path / "scheduler.txt"

    @property
    def writing(self) -> Path:
        """Whoever adds to the journal holds the kernel's lock on this file."""
        return self.path / ".writing"

    @property
    def lockable(self) -> RunDir:
        """The same folder, as launcher/launch/lock.py has it: its lock is the scheduler's."""
        return RunDir(self.path)


@dataclass(frozen=True)
class Entry:
    """One run of the queue."""

    number: int  # from 1, in the order in which they were added
    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...]
    working_folder: str
    gpus: int  # that it was judged to need; 0: it runs on the CPU
    added: float  # seconds since the epoch
    state: str = "waiting"  # waiting | running | one of OVER
    run_dir: RunDir | None = None
    on: tuple[str, ...] = ()  # its GPUs, as CUDA_VISIBLE_DEVICES names them
    passed: int = 0  # how many that were added later began before it
    first: bool = False  # somebody wants it to begin before all others
    cause: str = ""
    changed: float = 0.0  # seconds since the epoch
    via: str | None = None  # as conf.journal.VIA, of whoever added it


def queue_dir(environment: Mapping[str, str]) -> QueueDir:
    """One for a user and a machine: several machines may share a home."""
    return QueueDir(state_folder(environment) / "queue" / socket.gethostname())


def entries(queue: QueueDir) -> list[Entry]:
    """Every entry as its newest event has it, in the order of their numbers. A damaged line counts as absent."""
    found: dict[int, Entry] = {}
    for event in read_lines(queue.journal, is_event).entries:
        after(found, event)
    return [found[number] for number in sorted(found)]


def slots(queue: QueueDir) -> int:
    """How many runs without a GPU go on at the same time. One, unless somebody has said otherwise: each is judged to have the whole host memory."""
    said = [event["slots"] for event in read_lines(queue.journal, is_event).entries if event["event"] == SLOTS]
    return max(1, said[-1]) if said else 1


def after(found: dict[int, Entry], event: dict[str, Any]) -> None:
    """`found` with one more event."""
    number, kind, moment = event["entry"], event["event"], float(event["time"])
    if kind == ADDED:
        texts = (tuple(event["overrides"]), tuple(event["config_dirs"]), event["working_folder"])
        found[number] = Entry(number, *texts, event["gpus"], moment, changed=moment, via=event.get("via"))
        return
    before = found.get(number)
    if before is None:
        return
    if kind == STARTED:
        found[number] = replace(before, state="running", run_dir=RunDir(Path(event["run_folder"])), on=tuple(event["on"]), changed=moment)
    elif kind == FIRST:
        found.update({other: replace(entry, first=other == number) for other, entry in found.items()})
    elif kind == PASSED:
        found[number] = replace(before, passed=before.passed + 1)
    elif kind == REMOVED:
        found[number] = replace(before, state="removed", changed=moment)
    elif kind == ENDED:
        found[number] = replace(before, state=event["state"], cause=event["cause"], changed=moment)


def is_event(entry: dict[str, Any]) -> bool:
    needed: dict[str, Any] = {
        ADDED: {"overrides": list, "config_dirs": list, "working_folder": str, "gpus": int},
        STARTED: {"run_folder": str, "on": list},
        ENDED: {"state": str, "cause": str},
        SLOTS: {"slots": int},
    }
    if not (is_time(entry.get("time")) and is_whole(entry.get("entry")) and isinstance(entry.get("event"), str)):
        return False
    fields = needed.get(entry["event"], {})
    lists = (value for value in entry.values() if isinstance(value, list))
    if not isinstance(entry.get("via", ""), str):
        return False
    return all(isinstance(entry.get(key), kind) for key, kind in fields.items()) and all(isinstance(item, str) for one in lists for item in one)


@contextmanager
def writing(queue: QueueDir) -> Iterator[None]:
    """Nobody else adds to the journal meanwhile.

    Raises:
        DiskError: where the folder cannot be made or written.
    """
    try:
        queue.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(queue.writing, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DiskError(f"{queue.path} cannot be written: {error.strerror}. Set XDG_STATE_HOME to a folder that you may write to.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def record(queue: QueueDir, number: int, event: str, **facts: Any) -> None:
    """Append one event and make it durable. The caller holds `writing`.

    Raises:
        DiskError: where it cannot be written; the journal is as it was.
    """
    line = json.dumps({"time": round(time.time(), 3), "entry": number, "event": event, **masked_in(facts)}) + "\n"
    cut_torn_line(queue.journal)
    try:
        with queue.journal.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DiskError(f"{queue.journal} cannot be written: {error.strerror}. Free space, then give the command again.") from error


def record_wish(queue: QueueDir, number: int, event: str, **facts: Any) -> None:
    """An event that a person wanted, and the program through which."""
    via = os.environ.get(VIA)
    record(queue, number, event, **facts, **({"via": via} if via else {}))


def add(queue: QueueDir, overrides: Sequence[str], config_dirs: Sequence[Path], gpus: int) -> int:
    """The number of the new entry.

    Raises:
        ConfigError: where a run to go on with waits already.
        DiskError: as writing.
    """
    with writing(queue):
        known = entries(queue)
        refuse_twice(known, overrides)
        number = max([0, *(entry.number for entry in known)]) + 1
        folders = [str(folder.absolute()) for folder in config_dirs]
        record_wish(queue, number, ADDED, overrides=[*overrides], config_dirs=folders, working_folder=os.getcwd(), gpus=gpus)
    return number


def refuse_twice(known: Sequence[Entry], overrides: Sequence[str]) -> None:
    """Raises ConfigError where an entry waits to go on with the same run. One that runs has the lock of its folder."""
    folder = folder_to_go_on_in(overrides, os.getcwd())
    for entry in known:
        if folder and entry.state == "waiting" and folder_to_go_on_in(entry.overrides, entry.working_folder) == folder:
            raise ConfigError(
                f"{folder} waits already: it is number {entry.number} of the queue. To add it with other values, first: "
                f"regimen queue remove {entry.number}"
            )


def folder_to_go_on_in(overrides: Sequence[str], working_folder: str) -> str | None:
    """Without symbolic links; None for a new run."""
    name, _ = split_resume(overrides)
    return None if name is None else os.path.realpath(os.path.join(working_folder, name))


def begin(queue: QueueDir, number: int, run_dir: RunDir, on: tuple[str, ...]) -> bool:
    """Record that an entry begins; False where it does not wait any more, or another one has its GPUs, so that it may not."""
    with writing(queue):
        known = {entry.number: entry for entry in entries(queue)}
        running = [entry.on for entry in known.values() if entry.state == "running"]
        taken = any(set(other) & set(on) for other in running) if on else running.count(on) >= slots(queue)
        if known[number].state != "waiting" or taken:
            return False
        record(queue, number, STARTED, run_folder=str(run_dir.path.absolute()), on=list(on))
        for entry in known.values():
            if entry.state == "waiting" and entry.number < number:
                record(queue, entry.number, PASSED)
    return True


def end(queue: QueueDir, number: int, state: str, cause: str) -> None:
    with writing(queue):
        record(queue, number, ENDED, state=state, cause=cause)


def remove(queue: QueueDir, numbers: Sequence[int]) -> None:
    """Take entries that wait out of the queue, all of them or none.

    Raises:
        ConfigError: for a number that does not wait.
    """
    with writing(queue):
        known = {entry.number: entry for entry in entries(queue)}
        for number in numbers:
            refuse_unless_waiting(number, known.get(number))
        for number in numbers:
            record_wish(queue, number, REMOVED)


def set_slots(queue: QueueDir, number: int) -> None:
    """Let so many runs without a GPU go on at the same time, from now on.

    Raises:
        ConfigError: for less than one.
    """
    if number < 1:
        raise ConfigError(f"{number} is not a number of runs. Give 1 or more.")
    with writing(queue):
        record_wish(queue, 0, SLOTS, slots=number)


def put_first(queue: QueueDir, number: int) -> None:
    """Let an entry that waits begin before all others.

    Raises:
        ConfigError: for a number that does not wait.
    """
    with writing(queue):
        refuse_unless_waiting(number, {entry.number: entry for entry in entries(queue)}.get(number))
        record_wish(queue, number, FIRST)


def refuse_unless_waiting(number: int, entry: Entry | None) -> None:
    if entry is None:
        raise ConfigError(f"{number} is not a number of the queue. `regimen queue` lists it.")
    if entry.state == "running" and entry.run_dir is not None:
        raise ConfigError(f"{number} does not wait any more: it runs in {entry.run_dir.path}. End it with: regimen stop {entry.run_dir.path}")
    if entry.state != "waiting":
        raise ConfigError(f"{number} does not wait any more: it is {entry.state}.")
