"""Texts of a run folder as a page shows them: plain files alone, of a size that a page can hold, without a secret or a control character."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

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
    after: int = 0  # bytes behind the text


def read_plain(path: Path, most: int = MOST, around: int | None = None) -> Shown | None:
    """At most `most` bytes of a file, its end or what lies around a byte; None where it is not there, or a link, a pipe or a device."""
    with opened_plain(path) as file:
        if file is None:
            return None
        size = os.fstat(file.fileno()).st_size
        end = max(0, size - most)
        start = end if around is None else min(max(0, around - most // 2), end)
        file.seek(max(0, start - 1))
        read = file.read(most + min(1, start))
        if start > 0:  # whole lines: of half of a secret nobody could tell what it is
            begin = read.find(b"\n") + 1 or 1
            read, start = read[begin:], start - 1 + begin
        if start + len(read) < size:
            read = read[: read.rfind(b"\n") + 1 or len(read)]
        return Shown(visible(read.decode("utf-8", errors="replace")), size, start, max(0, size - start - len(read)))


@contextmanager
def opened_plain(path: Path) -> Iterator[BinaryIO | None]:
    """A file of its own, open to be read; None for what is not there, and for a link, a pipe or a device."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    with os.fdopen(handle, "rb") as file:
        yield file if stat.S_ISREG(os.fstat(handle).st_mode) else None


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


def log_part(run_dir: RunDir, name: str, around: int | None = None) -> Shown | None:
    """The end of one of `log_names`, or what lies around a byte of it; None for any other name."""
    return read_plain(run_dir.logs / name, TAIL, around) if name in log_names(run_dir) else None
