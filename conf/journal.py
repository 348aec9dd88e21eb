"""journal.jsonl: what happened to a run, one line an event, never rewritten. Every kind of event is a row type here.

Launcher and ranks write it. A line holds the time, the name of the event, and the fields of its row that are not None.
"""

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import UnionType
from typing import IO, Any, ClassVar, get_args, get_type_hints

from conf.exit_codes import NOT_A_NUMBER
from conf.records import is_number, is_time, is_whole, read_lines
from conf.run_dir import RunDir, cut_torn_line
from conf.secrets import masked_in

# Who starts a run. Only what USER starts was wanted by a person; the others start again what has failed or was interrupted.
USER, SUPERVISOR, SLURM, TORCHRUN = "the user", "the supervisor", "Slurm", "torchrun"

VIA = "REGIMEN_VIA"  # environment variable: the program through which the user gives a command, such as the board; absent on a command line


def through(via: str | None) -> str:
    return f", via {via}" if via else ""


@dataclass(frozen=True)
class Row:
    event: ClassVar[str]
    phrase: ClassVar[str]  # what `regimen status RUN` says of it, with its fields in braces; a row that says more than one thing has words of its own

    def words(self) -> str:
        shown = {name: ", ".join(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return self.phrase.format(**shown)


@dataclass(frozen=True)
class Submitted(Row):
    event = "submitted"
    job: str
    via: str | None = None  # as VIA

    def words(self) -> str:
        return f"submitted as Slurm job {self.job}{through(self.via)}"


@dataclass(frozen=True)
class Started(Row):
    """An attempt begins: its ranks are started next."""

    event = "start"
    host: str = ""
    by: str = USER
    job: str | None = None
    argv: tuple[str, ...] | None = None
    via: str | None = None  # as VIA

    def words(self) -> str:
        where = (f" on {self.host}" if self.host else "") + (f" in Slurm job {self.job}" if self.job else "")
        return f"started by {self.by}{where}{through(self.via)}"


@dataclass(frozen=True)
class Reopened(Row):
    """A finished run is made longer: from here on it is not a finished one, whatever happens before its ranks start."""

    event = "reopened"
    phrase = "goes on after its end"


@dataclass(frozen=True)
class Changed(Row):
    """A key that this attempt has with another value than the one before."""

    event = "change"
    phrase = "{key} changed from {before} to {after}"
    key: str
    before: str
    after: str


@dataclass(frozen=True)
class Rewound(Row):
    event = "rewound"
    checkpoint: str
    set_aside: tuple[str, ...]

    def words(self) -> str:
        return f"went back to {self.checkpoint}" + (f"; set aside: {', '.join(self.set_aside)}" if self.set_aside else "")


@dataclass(frozen=True)
class PassedOver(Row):
    """A damaged checkpoint."""

    event = "passed over"
    checkpoint: str
    fault: str
    set_aside: str | None = None  # its name now
    steps_lost: int | None = None  # from the newest whole one to it

    def words(self) -> str:
        aside = f"; set aside as {self.set_aside}" if self.set_aside else ""
        lost = f"; steps made again: {self.steps_lost}" if self.steps_lost else ""
        return f"{self.checkpoint} was not used: {self.fault}{aside}{lost}"


@dataclass(frozen=True)
class Committed(Row):
    event = "commit"
    step: int
    size: int  # bytes
    seconds: float  # hash, sync and rename

    def words(self) -> str:
        return f"committed step-{self.step} ({self.size / 2**20:,.1f} MiB, hashed and synced in {self.seconds:.1f} s)"


@dataclass(frozen=True)
class Pruned(Row):
    event = "prune"
    phrase = "removed {checkpoints} (checkpoint.keep)"
    checkpoints: tuple[str, ...]


@dataclass(frozen=True)
class Skipped(Row):
    """A step whose loss or gradient was NaN or infinite (training.on_nan=skip)."""

    event = "skip"
    phrase = "step {step} was left out: {what}"
    step: int
    what: str


@dataclass(frozen=True)
class StopRequested(Row):
    """The first request saves, the second ends the ranks at once, without a checkpoint."""

    event = "stop requested"
    by: str  # SIGINT, SIGTERM, ...; regimen stop; the time limit of Slurm; the supervisor, when nothing ended within its grace time
    level: int = 1
    via: str | None = None  # as VIA

    def words(self) -> str:
        return f"stop requested by {self.by}" + ("" if self.level == 1 else f" (request {self.level})") + through(self.via)


@dataclass(frozen=True)
class Hung(Row):
    event = "hang"
    phrase = "hung: {message}"
    message: str  # which rank stopped, and what it was doing


@dataclass(frozen=True)
class KilledRemains(Row):
    """Processes that libraries had started, and that were still there seconds after their ranks had ended."""

    event = "killed remains"
    phrase = "killed what the ranks had left: {pids}"
    pids: tuple[str, ...]


@dataclass(frozen=True)
class Failed(Row):
    """An attempt ended, and the run is started again."""

    event = "failure"
    phrase = "failed with exit code {exit_code} and is started again: {message}"
    exit_code: int
    message: str


@dataclass(frozen=True)
class Requeued(Row):
    event = "requeued"
    phrase = "Slurm job {job} was queued again"
    job: str


@dataclass(frozen=True)
class Ended(Row):
    """The run is not started again by itself."""

    event = "end"
    phrase = "ended with exit code {exit_code}: {message}"
    exit_code: int
    message: str


# What decides whether a run waits, runs or has ended; the others happen while it runs.
TURNS = frozenset({Submitted.event, Reopened.event, Started.event, Requeued.event, Ended.event})

ROWS: dict[str, type[Row]] = {row.event: row for row in Row.__subclasses__()}


def record(run_dir: RunDir, row: Row) -> None:
    """Append one event and make it durable. Several processes may do so at once.

    Raises:
        OSError: where it cannot be written.
    """
    facts = {name: value for name, value in vars(row).items() if value is not None}
    line = json.dumps({"time": round(time.time(), 3), "event": row.event, **masked_in(facts)}) + "\n"
    with run_dir.journal.open("ab") as file:
        wait_for_turn(file)
        cut_torn_line(run_dir.journal)
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def wait_for_turn(file: IO[bytes]) -> None:
    """Hold the kernel's lock until the file is closed: a line that another process writes would look torn."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):  # a file system without locks
            raise


def events(run_dir: RunDir) -> list[dict[str, Any]]:
    """The lines as they are. Damaged ones are left out; `regimen status` counts them."""
    return read_lines(run_dir.journal, is_event).entries


def is_event(entry: dict[str, Any]) -> bool:
    """Whether a line has a time and what its row needs. Of an event that a newer version writes, only the time is known."""
    if not is_time(entry.get("time")) or not isinstance(entry.get("event"), str):
        return False
    row = ROWS.get(entry["event"])
    return row is None or all(suits(entry, name, kind, needed) for name, kind, needed in shape(row.event))


@cache
def shape(event: str) -> list[tuple[str, Any, bool]]:
    """(name, type, whether a line must have it) of each field of its row."""
    row = ROWS[event]
    kinds = get_type_hints(row)
    return [(field.name, kinds[field.name], field.default is MISSING) for field in fields(row)]


def suits(entry: dict[str, Any], name: str, kind: Any, needed: bool) -> bool:
    if name not in entry:
        return not needed
    value = entry[name]
    if isinstance(kind, UnionType):
        kind = get_args(kind)[0]
    if kind is int:
        return is_whole(value)
    if kind is float:
        return is_number(value)
    if kind is str:
        return isinstance(value, str)
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def row_of(entry: dict[str, Any]) -> Row | None:
    """The row of a line that is_event accepts; None for an event that only a newer version knows."""
    row = ROWS.get(entry["event"])
    if row is None:
        return None
    given = {name: entry[name] for name, _, _ in shape(row.event) if name in entry}
    return row(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def lines(entries: Iterable[dict[str, Any]]) -> list[str]:
    """Date and words of each event, as a person reads them."""
    return [f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(entry['time']))}  {words(entry)}" for entry in entries]


def words(entry: dict[str, Any]) -> str:
    row = row_of(entry)
    return f"{entry['event']} (an event of a newer version)" if row is None else row.words()


def roll_backs(entries: Sequence[dict[str, Any]], step: int | None) -> int:
    """How often the run has gone back for a NaN (training.on_nan=rollback) since its checkpoint of `step`, or None: since its newest one.

    A person who chooses where the run goes on begins the count anew.
    """
    count = 0
    for row in map(row_of, entries):
        if isinstance(row, Rewound) or (isinstance(row, Committed) and step in (None, row.step)):
            count = 0
        elif isinstance(row, Failed) and row.exit_code == NOT_A_NUMBER:  # no other end with this code is followed by a start
            count += 1
    return count


def starts_without_progress(entries: Sequence[dict[str, Any]]) -> int:
    """How often the run was started again by itself since its last commit: the one counter of every restart, whoever makes it."""
    count = 0
    for row in map(row_of, entries):
        if isinstance(row, Committed):
            count = 0
        elif isinstance(row, Started) and row.by != USER:
            count += 1
    return count
