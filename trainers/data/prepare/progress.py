"""How far tokenising has come: a bar with rate and time left on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

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
    rate = records / seconds
    left = "" if total is None else f", {max(total - records, 0) / rate:,.0f} s left"
    of = "" if total is None else f" of {total:,}"
    return f"tokenised {records:,}{of} records, {records / seconds:,.0f} records/s, {tokens / seconds:,.0f} tokens/s{left}"


class Bar:
    def __init__(self, total: int | None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("tokenising"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        self.task = self.progress.add_task("", total=total, rate="")
        self.began, self.tokens = time.monotonic(), 0

    def add(self, records: int, tokens: int) -> None:
        self.tokens += tokens
        seconds = time.monotonic() - self.began
        done = self.progress.tasks[0].completed + records
        self.progress.update(self.task, advance=records, rate=f"{done / seconds:,.0f} records/s, {self.tokens / seconds:,.0f} tokens/s")


@contextmanager
def counter_for(total: int | None, out: TextIO = sys.stderr) -> Iterator[Counter]:
    if not out.isatty():
        yield Lines(total, out)
        return
    bar = Bar(total)
    with bar.progress:
        yield bar
