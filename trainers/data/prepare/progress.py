"""How far tokenising has come: a bar with rate and time left on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from conf.words import duration
from trainers.measures.bar import WordsBar

LINE_SECONDS = 10.0  # at most one plain line in this time


class Counter(Protocol):
    def add(self, records: int, tokens: int) -> None: ...


class Silent:
    def add(self, records: int, tokens: int) -> None: ...


class Lines:
    def __init__(self, total: int | None, out: TextIO) -> None:
        self.total, self.out, self.records, self.tokens = total, out, 0, 0
        self.began = self.printed = time.monotonic()

    def add(self, records: int, tokens: int) -> None:
        self.records += records
        self.tokens += tokens
        now = time.monotonic()
        if now - self.printed >= LINE_SECONDS:
            self.printed = now
            print(line(self.records, self.tokens, self.total, now - self.began), file=self.out, flush=True)


def line(records: int, tokens: int, total: int | None, seconds: float) -> str:
    of = "" if total is None else f" of {total:,}"
    left = "" if total is None else f", {duration(max(total - records, 0) * seconds / records)} left"
    return f"tokenised {records:,}{of} records, {records / seconds:,.0f} records/s, {tokens / seconds:,.0f} tokens/s{left}"


class Bar(WordsBar):
    def __init__(self, total: int | None) -> None:
        super().__init__("tokenising", 0, total)
        self.total, self.records, self.tokens, self.began = total, 0, 0, time.monotonic()

    def add(self, records: int, tokens: int) -> None:
        self.records, self.tokens = self.records + records, self.tokens + tokens
        seconds = max(time.monotonic() - self.began, 1e-9)
        left = [] if self.total is None else [f"{duration(max(self.total - self.records, 0) * seconds / max(self.records, 1))} left"]
        self.advance(records, [*left, f"{self.records / seconds:,.0f} records/s", f"{self.tokens / seconds:,.0f} tokens/s"])


@contextmanager
def counter_for(total: int | None, out: TextIO = sys.stderr) -> Iterator[Counter]:
    if not out.isatty():
        yield Lines(total, out)
        return
    bar = Bar(total)
    with bar.progress:
        yield bar
