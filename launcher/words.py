"""Sizes, times and counts as people read them, and what is red on a terminal."""

import os
import re
from typing import TextIO

from conf.words import duration as duration

GIB = 2**30


def gib(size: int | float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.1f} MiB"


def age(seconds: float) -> str:
    """How long ago, in the one unit that says enough."""
    seconds = max(0.0, seconds)  # clocks of two hosts differ
    for unit, size in (("day", 86_400), ("h", 3_600), ("min", 60)):
        count = int(seconds // size)
        if count:
            return plural(count, unit) if unit == "day" else f"{count} {unit}"
    return f"{int(seconds)} s"


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
