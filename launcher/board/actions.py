"""What the board does: words of the command line, shown as they are, run as a process of their own."""

import os
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.journal import VIA
from conf.run_dir import RunDir
from conf.secrets import masked
from launcher.command import PACKAGES
from launcher.errors import ConfigError

ACTIONS = ("stop", "resume", "export", "delete")
# Starts a module of these packages whatever the working folder holds, with nothing in the environment that a shell would not have there but VIA.
ENTRY = "import sys; sys.path.insert(0, sys.argv.pop(1)); from {} import main; raise SystemExit(main())"
STARTS, STARTS_IN_SECONDS = 10, 60.0
SECONDS = 600.0  # until the page hears no more of it; the process goes on
LAST_WORDS = 4000  # characters of a command's file that the page shows
BEGINNING = 5.0  # seconds within which a command that goes on for long has refused, if it does


@dataclass(frozen=True)
class Done:
    code: int | None  # None: it is still at work
    command: str
    text: str
    said: str = ""  # on standard error, where that was kept apart


class Starts:
    """So many starts in so short a time are no person's."""

    def __init__(self) -> None:
        self.times: deque[float] = deque(maxlen=STARTS)

    def count(self) -> None:
        """Raises ConfigError for one too many."""
        now = time.monotonic()
        if len(self.times) == STARTS and now < self.times[0] + STARTS_IN_SECONDS:
            raise ConfigError(f"The board starts at most {STARTS} runs in {STARTS_IN_SECONDS:.0f} s. Wait, or start it on the command line.")
        self.times.append(now)


def command_of(words: Sequence[str]) -> str:
    """As it can be pasted into a terminal."""
    return shlex.join(["regimen", *words])


def words_of(action: str, run_dir: RunDir, output: Path | None) -> list[str]:
    """Of an action on a run, one of ACTIONS."""
    path = str(run_dir.path.absolute())
    places = [] if output is None else ["--output", str(output)]
    words = {
        "stop": ["stop", path],
        "resume": ["train", "--detach", f"resume={path}"],
        "export": ["export", path],
        "delete": ["clean", "--yes", *places, path],
    }
    return words[action]


def words_of_checkpoint(run_dir: RunDir, name: str) -> list[str]:
    """The export of one checkpoint."""
    return ["export", f"{run_dir.path.absolute()}@{name}"]


def entry(module: str) -> tuple[str, ...]:
    return sys.executable, "-c", ENTRY.format(module), str(PACKAGES)


def run(words: Sequence[str], folder: Path, seconds: float = SECONDS, apart: bool = False) -> Done:
    """Run the words as the command line does, in a session of its own: whatever becomes of this process, it comes to its own end.

    `apart`: what goes to standard error is not in the text.
    """
    process = started(words, folder, subprocess.PIPE, subprocess.PIPE if apart else subprocess.STDOUT)
    try:
        text, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return Done(None, command_of(words), f"It is still at work after {seconds:.0f} s, as process {process.pid}, and goes on.")
    return Done(process.returncode, command_of(words), masked(text), masked(said or ""))


def begin(words: Sequence[str], folder: Path, log: Path) -> Done:
    """Run words that go on for hours, such as a sweep; what they say goes to a file, since nobody may be there to read it."""
    with log.open("ab") as output:
        process = started(words, folder, output.fileno(), subprocess.STDOUT)
    try:
        code: int | None = process.wait(BEGINNING)
    except subprocess.TimeoutExpired:
        return Done(0, command_of(words), f"It is at work as process {process.pid}. What it says is in {log}")
    return Done(code, command_of(words), masked(log.read_text(encoding="utf-8", errors="replace")[-LAST_WORDS:]))


def started(words: Sequence[str], folder: Path, output: int, errors: int, given: int = subprocess.DEVNULL) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        (*entry("launcher.cli"), *words),
        cwd=folder,
        env={**os.environ, VIA: "board"},
        stdin=given,
        stdout=output,
        stderr=errors,
        start_new_session=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
