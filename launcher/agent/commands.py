"""What an agent asks for, in words of the command line, and what that command answered."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.secrets import masked
from launcher.board.actions import command_of, entry
from launcher.errors import ConfigError

SECONDS = 600.0  # a start waits for the data to be tokenised; whatever takes longer goes on, and is not waited for


@dataclass(frozen=True)
class Answer:
    command: str  # as it can be pasted into a terminal
    code: int | None  # its exit code; None: it is still at work
    out: str
    err: str

    def as_dict(self) -> dict[str, Any]:
        """With the JSON that the command printed under "answer", or its text under "text"; what it said beside that under "said"."""
        found: dict[str, Any] = {"command": self.command, "exit_code": self.code, "said": self.err.strip()}
        try:
            found["answer"] = json.loads(self.out)
        except ValueError:
            found["text"] = self.out.strip()
        return found


def plan_words(overrides: Sequence[str]) -> list[str]:
    return ["plan", "--json", *checked(overrides)]


def proposal_words(overrides: Sequence[str]) -> list[str]:
    return ["plan", *checked(overrides)]


def start_words(overrides: Sequence[str]) -> list[str]:
    return ["train", "--detach", *checked(overrides)]


def status_words(run: str | None, output: Path | None) -> list[str]:
    return ["status", "--json", *place(output), *([] if run is None else checked([run]))]


def stop_words(run: str, output: Path | None) -> list[str]:
    return ["stop", *place(output), *checked([run])]


def place(output: Path | None) -> list[str]:
    """Where runs are looked for."""
    return [] if output is None else ["--output", str(output)]


def checked(words: Sequence[str]) -> Sequence[str]:
    """The words as they are.

    Raises:
        ConfigError: for one that the command line would read as an option, and for one that no command line can hold.
    """
    odd = next((word for word in words if word.startswith("-") or not word), None)
    if odd is not None:
        raise ConfigError(f"{odd!r} is not an override such as regime=lora, nor a file of a run or its name. Options cannot be given here.")
    cut = next((word for word in words if "\0" in word), None)
    if cut is not None:
        raise ConfigError(f"{cut!r} holds a NUL character, which ends a word of a command line. Leave it out.")
    return words


def answered(words: Sequence[str], folder: Path, seconds: float = SECONDS) -> Answer:
    """Run the words as the command line does, as a process of its own, which outlives this one."""
    process = subprocess.Popen(
        (*entry("launcher.cli"), *words),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return Answer(command_of(words), None, "", f"It is still at work after {seconds:.0f} s, as process {process.pid}, and goes on.")
    return Answer(command_of(words), process.returncode, masked(out), masked(err))


def refuse_without_library() -> None:
    """Raises ConfigError where the optional package is not installed."""
    from importlib.util import find_spec

    if find_spec("mcp") is None:
        raise ConfigError(f"`regimen mcp` needs the package mcp, which is not installed. Install it: {sys.executable} -m pip install 'mcp>=2.3,<3'")
