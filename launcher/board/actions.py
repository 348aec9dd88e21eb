"""What the board does: words of the command line, shown as they are, run as a process of their own."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.run_dir import RunDir
from conf.secrets import masked
from launcher.command import LAUNCHER, launcher_environment

ACTIONS = ("stop", "resume", "delete")
SECONDS = 600.0  # until the page hears no more of it; the process goes on


@dataclass(frozen=True)
class Done:
    code: int | None  # None: it is still at work
    command: str
    text: str


def command_of(words: Sequence[str]) -> str:
    """As it can be pasted into a terminal."""
    return shlex.join(["regimen", *words])


def words_of(action: str, run_dir: RunDir, output: Path | None) -> list[str]:
    """Of an action on a run, one of ACTIONS."""
    path = str(run_dir.path.absolute())
    places = [] if output is None else ["--output", str(output)]
    words = {"stop": ["stop", path], "resume": ["train", "--detach", f"resume={path}"], "delete": ["clean", "--yes", *places, path]}
    return words[action]


def run(words: Sequence[str], folder: Path) -> Done:
    """Run the words as the command line does, in a session of its own: whatever becomes of the board, it comes to its own end."""
    process = subprocess.Popen(
        (*LAUNCHER, *words),
        cwd=folder,
        env=launcher_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        said, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Done(None, command_of(words), f"It is still at work after {SECONDS:.0f} s, as process {process.pid}, and goes on.")
    return Done(process.returncode, command_of(words), masked(said))
