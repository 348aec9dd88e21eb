"""Texts of a run folder as a page shows them: plain files alone, of a size that a page can hold, without a secret or a control character."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from conf.run_dir import RunDir

MOST = 2 * 2**20  # bytes of a file that are read at once
TAIL = 64 * 2**10  # bytes of a log that are shown
ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # also those that turn the direction of writing


@dataclass(frozen=True)
class Shown:
    text: str
    size: int  # bytes of the whole file
    left_out: int  # bytes before the text


def read_plain(path: Path, most: int = MOST) -> Shown | None:
    """The end of a file, at most `most` bytes of it; None where it is not there, or a link, a pipe or a device."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            return None
        start = max(0, found.st_size - most)
        file.seek(start)
        return Shown(visible(file.read(most).decode("utf-8", errors="replace")), found.st_size, start)


def visible(text: str) -> str:
    """Without colours, with what a progress bar wrote last on each line, and with other control characters as they are written in C."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in ANSI.sub("", text).split("\n")]
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", "\n".join(lines))


def log_names(run_dir: RunDir) -> list[str]:
    """The plain files in log/: the ranks' first, in their order."""
    try:
        found = [entry.name for entry in os.scandir(run_dir.logs) if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(found, key=lambda name: (not name.startswith("rank-"), len(name), name))


def log_tail(run_dir: RunDir, name: str) -> Shown | None:
    """The end of one of `log_names`; None for any other name."""
    return read_plain(run_dir.logs / name, TAIL) if name in log_names(run_dir) else None
