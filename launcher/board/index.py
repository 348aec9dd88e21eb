"""The runs that the board shows, by id: a page names a run by its id alone, and no path that a browser sends is ever opened."""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from conf.run_dir import RunDir
from launcher.errors import ConfigError
from launcher.launch import status
from launcher.launch.places import places
from launcher.launch.status import RunStatus

ENDED = ("finished", "stopped", "failed")
GONE = "There is no such run any more. The page of all runs shows those that are there."
ID_DIGITS = 16
SLURM_SECONDS = 30.0  # between two questions to squeue: every question costs the controller


def id_of(run_dir: RunDir) -> str:
    return hashlib.sha256(os.fsencode(run_dir.path.absolute())).hexdigest()[:ID_DIGITS]


@dataclass
class Index:
    """What was read of ended runs is kept as long as their files stay as they are; everything else is read again each time."""

    output: Path | None  # None: every place that this working folder has used
    found: dict[str, RunDir] = field(default_factory=dict)
    known: dict[Path, tuple[tuple[object, ...], RunStatus]] = field(default_factory=dict)
    slurm: dict[Path, RunStatus] = field(default_factory=dict)
    asked: dict[Path, float] = field(default_factory=dict)  # when, by the clock of this process

    def all(self) -> list[RunDir]:
        """Newest first. A folder that a link leads to from outside of the places is left out."""
        roots = [place.resolve() for place in places(self.output)]
        runs = [run_dir for run_dir in status.find_runs(self.output) if any(run_dir.path.resolve().is_relative_to(root) for root in roots)]
        self.found = {id_of(run_dir): run_dir for run_dir in reversed(runs)}
        return list(self.found.values())

    def run(self, identity: str) -> RunDir:
        """Raises ConfigError where there is no such run."""
        if identity not in self.found:
            self.all()
        run_dir = self.found.get(identity)
        if run_dir is None or not run_dir.run_yaml.is_file():
            raise ConfigError(GONE)
        return run_dir

    def statuses(self, runs: Sequence[RunDir]) -> list[RunStatus]:
        """As `regimen status` has them; a run that is being removed is left out."""
        found = map(self.status, runs)
        return self.as_slurm_says([now for now in found if now is not None])

    def status(self, run_dir: RunDir) -> RunStatus | None:
        try:
            return self.read(run_dir)
        except FileNotFoundError:  # removed since it was found
            return None

    def read(self, run_dir: RunDir) -> RunStatus:
        odd = odd_files(run_dir)
        if odd:
            return RunStatus(run_dir, "unknown", 0, 0, None, None, run_dir.path.stat().st_mtime, None, odd)
        signature = tuple(map(stamp, records(run_dir)))
        before = self.known.get(run_dir.path)
        if before is not None and before[0] == signature:
            return before[1]
        now = status.status_of(run_dir)
        if now.state in ENDED:
            self.known[run_dir.path] = (signature, now)
        return now

    def as_slurm_says(self, found: list[RunStatus]) -> list[RunStatus]:
        """With what squeue knows of their jobs, or knew a moment ago."""
        now = time.monotonic()
        unasked = [run for run in found if run.job and now > self.asked.get(run.run_dir.path, float("-inf")) + SLURM_SECONDS]
        if unasked:
            from launcher.launch.batch_job import as_slurm_says  # a machine without Slurm starts faster

            self.slurm |= {run.run_dir.path: run for run in as_slurm_says(unasked)}
        self.asked |= {run.run_dir.path: now for run in unasked}
        return [with_answer(run, self.slurm[run.run_dir.path]) if run.job else run for run in found]


def with_answer(run: RunStatus, said: RunStatus) -> RunStatus:
    return replace(run, state=said.state, message=said.message)


def records(run_dir: RunDir) -> list[Path]:
    return [run_dir.run_yaml, run_dir.plan, run_dir.journal, run_dir.progress, run_dir.memory, run_dir.lock, run_dir.doing, run_dir.exits]


def stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def odd_files(run_dir: RunDir) -> str:
    """Which of the records is no plain file: a link may lead out of the folder, and a pipe or a device would never end. Empty for none."""
    folders = [run_dir.logs, run_dir.exits, run_dir.layouts, run_dir.checkpoints, run_dir.signs]
    files = [run_dir.run_yaml, run_dir.plan, run_dir.journal, run_dir.progress, run_dir.memory, run_dir.lock, run_dir.doing, run_dir.samples]
    inside = [path for folder in (run_dir.exits, run_dir.layouts, run_dir.signs) if is_kind(folder, stat.S_ISDIR) for path in folder.glob("*")]
    odd = [path for path in folders if not is_kind(path, stat.S_ISDIR)] + [path for path in [*files, *inside] if not is_kind(path, stat.S_ISREG)]
    named = ", ".join(str(path.relative_to(run_dir.path)) for path in odd)
    return f"not shown, because this is a link or no plain file: {named}" if odd else ""


def is_plain(path: Path) -> bool:
    """A file of its own, or nothing at all."""
    return is_kind(path, stat.S_ISREG)


def is_kind(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether a path is of a kind of `stat`, or not there at all; a link counts as a link."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return True
    return kind(mode)
