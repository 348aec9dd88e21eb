"""What an agent asks for, in words of the command line, and what that command answered."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.board.actions import Done
from launcher.errors import ConfigError


def as_dict(done: Done) -> dict[str, Any]:
    """With the JSON that the command printed under "answer", or its text under "text"; what it said beside that under "said"."""
    found: dict[str, Any] = {"command": done.command, "exit_code": done.code, "said": done.said.strip()}
    try:
        found["answer"] = json.loads(done.text)
    except ValueError:
        found["text"] = done.text.strip()
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


def refuse_without_library() -> None:
    """Raises ConfigError where the optional package is not installed."""
    from importlib.util import find_spec

    if find_spec("mcp") is None:
        raise ConfigError(f"`regimen mcp` needs the package mcp, which is not installed. Install it: {sys.executable} -m pip install 'mcp>=2.3,<3'")
