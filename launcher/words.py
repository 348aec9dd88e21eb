"""Sizes, times and counts as people read them, and what is red on a terminal."""

import os
import re
import shlex
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from conf.words import duration as duration
from conf.words import in_columns

GIB = 2**30
WIDTH = 80  # columns of a terminal that nobody has widened


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


def count(number: int) -> str:
    """8.03 B, 494 M, 0.4 M, 1,280."""
    if number >= 10**9:
        return f"{number / 10**9:.3g} B"
    if number >= 10**5:
        return f"{number / 10**6:.1f} M" if number < 10**8 else f"{number / 10**6:.0f} M"
    return f"{number:,}"


def wrapped(text: str, later: int = 2) -> list[str]:
    """The text as lines that fit a terminal; `later` columns stand before all but the first. A word that is longer, such as a path, stays whole."""
    return in_columns(text, WIDTH, later) or [""]


def first_line(text: str) -> str:
    return text.split("\n", 1)[0]


def on_one_line(text: str) -> str:
    """With control characters as Python writes them, which could move a terminal's cursor, begin a line or turn the direction of writing."""
    return "".join(written(character) if is_control(character) else character for character in text)


def is_control(character: str) -> bool:
    return unicodedata.category(character)[0] == "C" or character in "\u2028\u2029"


def written(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shell_line(words: Sequence[str]) -> str:
    """The words as a line for a shell; one with a control character in the quotes of bash, zsh and ksh that take it as it is written there."""
    return " ".join(shlex.quote(word) if not any(map(is_control, word)) else f"$'{''.join(map(in_quotes, word))}'" for word in words)


def in_quotes(character: str) -> str:
    number = ord(character)
    if not is_control(character):
        return f"\\{character}" if character in "\\'" else character
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


ALARM = re.compile(r"\bREFUSED\b|^  FAIL\b|^fail\b|(?<=  )(?:failed|dead)(?=  )", re.MULTILINE)  # in verdicts, of doctor, states of status


def red_alarms(text: str, out: TextIO) -> str:
    """The same text with what went wrong in red, for a terminal whose user did not decline colours (no-color.org)."""
    if not out.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return ALARM.sub(lambda found: f"\x1b[1;31m{found[0]}\x1b[0m", text)
