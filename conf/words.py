"""How the launcher and the ranks both say a time, and how lines and tables find room for what they say."""

import textwrap
import unicodedata
from collections.abc import Sequence

BAR_WIDTH = 20  # characters of a bar, so that a line of 80 has room for the words beside it
BETWEEN = " · "


def duration(seconds: float) -> str:
    """In two units at most; from two days on in days and hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days {hours % 24} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def fitted(parts: Sequence[str], width: int) -> str:
    """As many of the parts as one line has room for, from the first; a part is shown whole or not at all."""
    shown = parts[0]
    for part in parts[1:]:
        if columns(shown) + len(BETWEEN) + columns(part) > width:
            break
        shown += BETWEEN + part
    return shown


def columns(text: str) -> int:
    """How many columns of a terminal the text takes: Chinese characters take two each, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 0 if unicodedata.combining(char) else 1 for char in text)


def in_columns(text: str, width: int, later: int = 0) -> list[str]:
    """The text as lines of at most `width` columns, broken at spaces; `later` spaces stand before all but the first. A longer word stays whole."""
    if text.isascii():
        return textwrap.wrap(text, width, subsequent_indent=" " * later, break_long_words=False, break_on_hyphens=False)
    first, *words = text.rstrip().split(" ")
    lines = [first]
    for word in words:
        if columns(lines[-1]) + 1 + columns(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(" " * later + word)
    return lines


def aligned(rows: Sequence[Sequence[str]], right_from: int | None = None) -> list[str]:
    """The rows of a table as lines; cells stand at the left of their columns, and from `right_from` on at the right."""
    widths = [max(map(columns, cells)) for cells in zip(*rows, strict=True)]
    left = len(widths) if right_from is None else right_from
    lines = []
    for row in rows:
        spaces = [" " * (width - columns(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [cell + space if place < left else space + cell for place, (cell, space) in enumerate(zip(row, spaces, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def size_in_words(size: int) -> str:
    """Bytes in the largest unit of which there is one."""
    unit, value = next(((unit, size / 2**power) for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)) if size >= 2**power), ("bytes", size))
    return f"{size} bytes" if unit == "bytes" else f"{value:.2f} {unit}"
