"""Sizes, times and counts as people read them, and what is red on a terminal."""

import os
import re
from typing import TextIO

from conf.words import duration as duration

GIB = 2**30


def gib(size: int | float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.1f} MiB"


def age(seconds: float) -> str:
    """How long ago, in the largest unit of which there are two or more: 90 min say more than 1 h."""
    seconds = max(0.0, seconds)  # clocks of two hosts differ
    units = (("days", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    unit, size = next(((unit, size) for unit, size in units if seconds >= 2 * size), units[-1])
    return f"{int(seconds // size)} {unit}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def first_line(text: str) -> str:
    return text.split("\n", 1)[0]


ALARM = re.compile(r"\bREFUSED\b|^  FAIL\b|^fail\b|(?<=  )(?:failed|dead)(?=  )", re.MULTILINE)  # in verdicts, of doctor, states of status


def red_alarms(text: str, out: TextIO) -> str:
    """The same text with what went wrong in red, for a terminal whose user did not decline colours (no-color.org)."""
    if not out.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return ALARM.sub(lambda found: f"\x1b[1;31m{found[0]}\x1b[0m", text)
