"""The search of a log, of whatever size: a part of the file at a time, from a byte on, and no more lines than a page can hold."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from conf.secrets import masked
from launcher.board.files import opened_plain, visible

MOST_LINES = 200  # of one answer
MOST_BYTES = 128 * 2**20  # that one answer reads
BLOCK = 4 * 2**20  # bytes that are read at once
BEFORE, AFTER = 150, 350  # letters of a line that are shown around the words
MASKED = 4096  # bytes on each side of the words in which secrets are looked for
WORD_CUT_BEFORE, WORD_CUT_OFF = re.compile(rb"^\S*"), re.compile(rb"\S*$")


@dataclass(frozen=True)
class Line:
    at: int  # the byte of the file where the words begin
    text: str


@dataclass(frozen=True)
class Found:
    lines: tuple[Line, ...]
    end: int  # the byte up to which the file was searched
    size: int
    full: bool  # there were MOST_LINES of them

    @property
    def over(self) -> bool:
        return self.end >= self.size


def search(path: Path, words: str, start: int) -> Found | None:
    """The lines from byte `start` on that hold the words, in capitals or not; None where the file cannot be read.

    Letters outside of ASCII are compared as they are.
    """
    wanted = words.encode().lower()
    with opened_plain(path) as file:
        if file is None or not wanted:
            return None
        size = file.seek(0, 2)
        lines: list[Line] = []
        end = start
        for at, block, inside in blocks(file, start, min(size, start + MOST_BYTES), len(wanted) - 1):
            for line in lines_in(block, wanted, at, inside):
                if len(lines) == MOST_LINES:
                    return Found(tuple(lines), line.at, size, full=True)
                lines.append(line)
            end = at + len(block)
        return Found(tuple(lines), max(end, min(size, start)), size, full=False)


def blocks(file: BinaryIO, start: int, end: int, overlap: int) -> Iterator[tuple[int, bytes, bool]]:
    """Whole lines of the file, about BLOCK bytes at a time, with the place of the first one and whether that began before; pieces of a longer line
    overlap."""
    at = start
    file.seek(max(0, start - 1))
    inside = start > 0 and file.read(1) != b"\n"
    while at < end:
        file.seek(at)
        block = file.read(BLOCK)
        if not block:
            return
        is_last, whole = len(block) < BLOCK, block.rfind(b"\n") + 1
        block = block[:whole] if whole and not is_last else block
        yield at, block, inside
        inside = not whole
        at += len(block) - (0 if whole or is_last else overlap)


def lines_in(block: bytes, wanted: bytes, at: int, inside: bool) -> Iterator[Line]:
    """Each line once, whatever it holds of the words."""
    lowered, place = block.lower(), 0
    while (found := lowered.find(wanted, place)) >= 0:
        begin, stop = block.rfind(b"\n", 0, found) + 1, block.find(b"\n", found)
        stop = len(block) if stop < 0 else stop
        yield Line(at + found, shown(block[begin:stop], found - begin, wanted, inside and begin == 0))
        place = stop + 1


def shown(line: bytes, found: int, wanted: bytes, inside: bool) -> str:
    """What stands around the words at `found`. Secrets are masked before anything is cut off: of half of one nobody could tell what it is.

    `inside`: the line began before.
    """
    begin, end = max(0, found - MASKED), found + len(wanted) + MASKED
    part = line[begin:end]
    if end < len(line):
        part = part[: len(wanted) + found - begin] + WORD_CUT_OFF.sub(b"", part[len(wanted) + found - begin :])
    if begin > 0 or inside:
        part = WORD_CUT_BEFORE.sub(b"", part[: found - begin]) + part[found - begin :]
    text = masked(visible(part.decode("utf-8", errors="replace").replace("\r", "\n")).strip("\n"))
    words = wanted.decode("utf-8", errors="replace")
    place = max(0, text.lower().find(words))
    return text[max(0, place - BEFORE) : place + len(words) + AFTER]
