"""How far work has come: a bar with rate and time left on a terminal, plain lines in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from conf.words import duration
from trainers.measures.bar import WordsBar

LINE_SECONDS = 10.0  # at most one plain line in this time

Advance = Callable[[int, int], None]  # items and tokens that were done since the last call


@contextmanager
def meter(what: str, done: int, total: int, out: TextIO) -> Iterator[Advance]:
    """`done` of `total` items were there before."""
    if out.isatty():
        with bar(what, done, total) as advance:
            yield advance
    else:
        yield lines(what, done, total, out)


def lines(what: str, done: int, total: int, out: TextIO) -> Advance:
    began = printed = time.monotonic()
    items = tokens = 0

    def advance(more: int, more_tokens: int) -> None:
        nonlocal items, tokens, printed
        items, tokens, now = items + more, tokens + more_tokens, time.monotonic()
        if now - printed >= LINE_SECONDS or done + items == total:
            printed = now
            print(progress_line(what, done + items, total, items, tokens, now - began), file=out, flush=True)

    return advance


def progress_line(what: str, done: int, total: int, items: int, tokens: int, seconds: float) -> str:
    left = duration((total - done) * seconds / items)
    return f"{what} {done:,} of {total:,}, {items / seconds:,.1f}/s, {tokens / seconds:,.0f} tokens/s, {left} left"


@contextmanager
def bar(what: str, done: int, total: int) -> Iterator[Advance]:
    began, items, tokens = time.monotonic(), 0, 0
    shown = WordsBar(what, done, total)

    def advance(more: int, more_tokens: int) -> None:
        nonlocal items, tokens
        items, tokens, seconds = items + more, tokens + more_tokens, max(time.monotonic() - began, 1e-9)
        left = duration((total - done - items) * seconds / max(items, 1))
        shown.advance(more, [f"{left} left", f"{tokens / seconds:,.0f} tokens/s"])

    with shown.progress:
        yield advance
