"""What the processes of a run wrote about it, read back: a line or file that is damaged costs no more than itself.

It is left out and counted; `regimen status` shows the count. Damage comes from a full disk, a power failure or an editor.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

NUMBERS = {int, float}  # a truth is none of them
FEW_LINES = 200  # are read at once: a damaged line makes no more than these slower

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
    found = [entry for some in few_at_a_time(text[: text.rfind(b"\n") + 1]) for entry in parsed_lines(some, fits)]
    return Read([entry for entry in found if entry is not None], found.count(None))


def few_at_a_time(text: bytes) -> Iterator[list[bytes]]:
    lines = text.splitlines()
    return (lines[start : start + FEW_LINES] for start in range(0, len(lines), FEW_LINES))


def parsed_lines(lines: list[bytes], fits: Fits) -> list[dict[str, Any] | None]:
    """One for each line; None for one that is damaged."""
    entries = at_once(lines)
    if entries is None:
        return [parsed(line, fits) for line in lines]
    return [entry if isinstance(entry, dict) and fits(entry) else None for entry in entries]


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
    if not (is_whole(entry.get("step")) and is_whole(entry.get("of")) and NUMBERS.issuperset(map(type, entry.values()))):
        return False
    return ("time" not in entry or is_time(entry["time"])) and ("eta_seconds" not in entry or is_time(entry["eta_seconds"]))


def are_steps(columns: Mapping[str, Sequence[Any]]) -> bool:
    """Whether is_step is true of every one of some lines with the same keys, whose values are given by key: False also where that is not certain."""
    counts = [columns.get(key, [None]) for key in ("step", "of")]
    if not all(set(map(type, column)) == {int} and min(column) > -(2**63) and max(column) < 2**63 for column in counts):
        return False
    times = [columns[key] for key in ("time", "eta_seconds") if key in columns]
    if not all(NUMBERS.issuperset(map(type, column)) for column in columns.values()):
        return False
    try:
        return all(all(map(math.isfinite, column)) and min(column) >= 0 and max(column) < 2**40 for column in times)
    except OverflowError:  # a number that no float holds
        return False


def columns_of_steps(text: bytes) -> Iterator[dict[str, tuple[Any, ...]]]:
    """The lines of progress.jsonl in their order, by key: of as many lines at once as have the same keys. One that is no step is left out."""
    for lines in few_at_a_time(text):
        entries = at_once(lines)
        if entries is None or set(map(type, entries)) != {dict}:
            entries = [entry for entry in parsed_lines(lines, is_step) if entry is not None]
        for keys, alike in groupby(entries, key=tuple):
            rows = list(alike)
            columns = dict(zip(keys, zip(*map(dict.values, rows), strict=True), strict=True))
            if are_steps(columns):
                yield columns
            else:
                yield from ({key: (value,) for key, value in row.items()} for row in rows if is_step(row))


def is_doing(entry: dict[str, Any]) -> bool:
    """A line of layout/doing.jsonl."""
    return is_time(entry.get("time")) and isinstance(entry.get("doing"), str)


def is_exit(entry: dict[str, Any]) -> bool:
    """A file of exit/."""
    return is_whole(entry.get("code")) and is_whole(entry.get("rank")) and is_time(entry.get("time")) and isinstance(entry.get("message"), str)


def is_number(value: object) -> bool:
    return type(value) in NUMBERS


def is_whole(value: object) -> bool:
    return type(value) is int and -(2**63) < value < 2**63


def is_time(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and 0 <= value < 2**40  # false of NaN too
