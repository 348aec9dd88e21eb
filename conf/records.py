"""What the processes of a run wrote about it, read back: a line or file that is damaged costs no more than itself.

It is left out and counted; `regimen status` shows the count. Damage comes from a full disk, a power failure or an editor.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUMBERS = {int, float}  # a truth is none of them

Fits = Callable[[dict[str, Any]], bool]


@dataclass(frozen=True)
class Read:
    entries: list[dict[str, Any]]
    damaged: int  # lines or files that were left out


def read_lines(path: Path, fits: Fits) -> Read:
    """Every whole line of a file that may still be growing; a torn last line is left for later."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Read([], 0)
    except OSError:  # a folder in its place, or a disk that no longer answers
        return Read([], 1)
    return parse_lines(text, fits)


def parse_lines(text: bytes, fits: Fits) -> Read:
    lines = text[: text.rfind(b"\n") + 1].splitlines()
    entries = at_once(lines)
    found = [parsed(line, fits) for line in lines] if entries is None else [entry if is_object(entry) and fits(entry) else None for entry in entries]
    return Read([entry for entry in found if entry is not None], found.count(None))


def at_once(lines: list[bytes]) -> list[Any] | None:
    """What the lines hold, read as one list, which takes a fifth of the time; None where one of them is damaged."""
    try:
        entries: list[Any] = json.loads(b"[%s]" % b",".join(lines))
    except (ValueError, RecursionError):
        return None
    return entries if len(entries) == len(lines) else None


def is_object(entry: Any) -> bool:
    return isinstance(entry, dict)


def read_object(path: Path, fits: Fits) -> dict[str, Any] | None:
    """The object of a JSON file; None where it is damaged.

    Raises:
        FileNotFoundError: where there is none.
    """
    try:
        return parsed(path.read_bytes(), fits)
    except FileNotFoundError:
        raise
    except OSError:
        return None


def parsed(text: bytes, fits: Fits) -> dict[str, Any] | None:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, or brackets without end
        return None
    return entry if is_object(entry) and fits(entry) else None


def is_step(entry: dict[str, Any]) -> bool:
    """A line of progress.jsonl: numbers alone, of which a loss may be none (NaN)."""
    whole = is_whole(entry.get("step")) and is_whole(entry.get("of"))
    return whole and set(map(type, entry.values())) <= NUMBERS and is_time(entry.get("time", 0)) and is_time(entry.get("eta_seconds", 0))


def is_doing(entry: dict[str, Any]) -> bool:
    """A line of layout/doing.jsonl."""
    return is_time(entry.get("time")) and isinstance(entry.get("doing"), str)


def is_exit(entry: dict[str, Any]) -> bool:
    """A file of exit/."""
    return is_whole(entry.get("code")) and is_whole(entry.get("rank")) and is_time(entry.get("time")) and isinstance(entry.get("message"), str)


def is_number(value: object) -> bool:
    return type(value) in NUMBERS


def is_whole(value: object) -> bool:
    return type(value) is int and abs(value) < 2**63


def is_time(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value) and 0 <= value < 2**40
