"""The real command line as a subprocess, and what /proc says about the processes that it starts."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.run_dir import RunDir
from tests.waiting import PATIENCE, wait_until

MODULE = (sys.executable, "-m", "launcher")
SCRIPT = (str(Path(sysconfig.get_path("scripts"), "regimen")),)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


def environment(**site: str) -> dict[str, str]:
    """This process's environment without what torchrun or pytest left in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHELASTIC", "PYTEST"))}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **site}


def shadowed(folder: Path) -> Path:
    """A working folder with packages of the user's own under our names."""
    for name in ("conf", "trainers", "launcher"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise SystemExit('the {name} of the working folder was imported')\n")
    return folder


def call(argv: Sequence[str], cwd: Path, **site: str) -> Ended:
    done = subprocess.run(
        [*argv], cwd=cwd, env=environment(**site), capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@dataclass
class Started:
    process: "subprocess.Popen[str]"

    def wait_until(self, holds: Callable[[], Any], what: str) -> Any:
        """The first true answer of `holds`, which this process brings about."""
        return wait_until(holds, what, self.process)

    def the_run(self, output: Path) -> RunDir:
        """The only run folder, once this process has made it."""
        return only(self.wait_until(lambda: run_folders(output), f"run folder under {output}"))

    def end(self) -> Ended:
        out, err = self.process.communicate(timeout=PATIENCE)
        return Ended(self.process.returncode, out, err)


@contextmanager
def start(argv: Sequence[str], cwd: Path, **site: str) -> Iterator[Started]:
    """A process that is still at work; killed with all that it started if the test leaves early."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*argv], cwd=cwd, env=environment(**site), **pipes) as process:
        try:
            yield Started(process)
        finally:
            for pid in [*descendants(process.pid), process.pid] if process.poll() is None else []:
                signal_if_there(pid, 9)


def signal_if_there(pid: int, number: int) -> None:
    if Path(f"/proc/{pid}").exists():
        os.kill(pid, number)


def run_folders(output: Path) -> list[RunDir]:
    return [RunDir(path.parent) for path in sorted(output.glob("*/*/run.yaml"))]


def the_run(output: Path) -> RunDir:
    """The only run folder."""
    return only(run_folders(output))


def only(found: Sequence[RunDir]) -> RunDir:
    assert len(found) == 1, found
    return found[0]


def entries(run_dir: RunDir) -> list[dict[str, Any]]:
    """What has been logged so far, whole lines only."""
    if not run_dir.progress.exists():
        return []
    return [json.loads(line) for line in run_dir.progress.read_text().splitlines(keepends=True) if line.endswith("\n")]


def losses(run_dir: RunDir) -> dict[int, float]:
    """Training loss of each step; of a step that was made twice, the second."""
    return {entry["step"]: entry["loss"] for entry in entries(run_dir) if "loss" in entry}


def reached(run_dir: RunDir, step: int) -> Callable[[], bool]:
    return lambda: max(losses(run_dir), default=0) >= step


@dataclass(frozen=True)
class Process:
    pid: int
    argv: tuple[str, ...]
    environment: dict[str, str]


def read_process(pid: int) -> Process | None:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        pairs = [entry.split("=", 1) for entry in Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0") if "=" in entry]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return Process(pid, tuple(argv), dict(pairs))


def parent_of(stat: Path) -> int:
    try:
        return int(stat.read_text().rsplit(")", 1)[1].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, children first."""
    below = [int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if parent_of(stat) == pid]
    return [*below, *(deeper for child in below for deeper in descendants(child))]


def processes_of(run_dir: RunDir) -> list[Process]:
    """Agent and ranks of a run: their command lines end with its folder."""
    found = [read_process(int(path.name)) for path in Path("/proc").glob("[0-9]*")]
    return [process for process in found if process is not None and process.argv and process.argv[-1] == str(run_dir.path)]


def ranks_of(run_dir: RunDir) -> list[Process]:
    return [process for process in processes_of(run_dir) if process.argv[-3:-1] == ("-m", "trainers") and "RANK" in process.environment]


def agents_of(run_dir: RunDir) -> list[Process]:
    return [process for process in processes_of(run_dir) if process.argv[-3:-1] == ("-m", "trainers") and "RANK" not in process.environment]
