"""What a sweep shows while it runs: on a terminal a table of the running points below the lines, elsewhere the lines alone."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from conf.words import BETWEEN, duration
from launcher.launch.progress import Doing, Tail, expected_of, measures
from launcher.sweep.processes import Running
from launcher.sweep.table import label
from launcher.words import plural

if TYPE_CHECKING:
    from rich.table import Table

REFRESH_SECONDS = 1.0  # the files of every running point are read this often
HEAD = ("point", "GPU", "overrides", "step", "loss", "time left")


class Display(Protocol):
    def update(self, running: Sequence[Running], waiting: int) -> None: ...
    def say(self, text: str) -> None: ...


class Lines:
    """For a log file: a line when a point starts and when it ends. `regimen status SWEEP` shows the steps in between."""

    def update(self, running: Sequence[Running], waiting: int) -> None:
        pass

    def say(self, text: str) -> None:
        print(text, flush=True)


class Follower:
    """The newest that a running point says of itself."""

    def __init__(self, running: Running) -> None:
        self.tail, self.doing, self.expected = Tail(running.run_dir, from_start=True), Doing(running.run_dir), expected_of(running.run_dir)
        self.newest: dict[str, Any] = {}

    def cells(self) -> tuple[str, str, str]:
        """Step, what the stage is about, and time left; before the first step what the run does instead."""
        self.doing.changes()
        for entry in self.tail.new_entries():
            self.newest |= entry
        if "step" not in self.newest:
            return self.doing.words(), "", ""
        left = duration(self.newest["eta_seconds"]) if "eta_seconds" in self.newest else ""
        return f"{self.newest['step']}/{self.newest['of']}", BETWEEN.join(measures(self.newest, self.expected.shown)), left


class LiveTable:
    """The running points, drawn anew in place once a second."""

    def __init__(self, gpus: Sequence[str]) -> None:
        from rich.console import Console
        from rich.live import Live

        self.gpus, self.followers, self.drawn = gpus, dict[int, Follower](), -REFRESH_SECONDS
        self.live = Live(console=Console(file=sys.stdout), auto_refresh=False, transient=True)

    def update(self, running: Sequence[Running], waiting: int) -> None:
        if time.monotonic() - self.drawn < REFRESH_SECONDS:
            return
        self.drawn = time.monotonic()
        self.followers = {one.point.number: self.followers.get(one.point.number) or Follower(one) for one in running}
        self.live.update(self.table(running, waiting), refresh=True)

    def table(self, running: Sequence[Running], waiting: int) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table(*HEAD, box=None, caption=f"{plural(len(running), 'point')} running, {waiting} waiting", caption_justify="left")
        for one in running:
            places = ", ".join(str(self.gpus.index(gpu)) for gpu in one.gpus)
            cells = (str(one.point.number), places, label(one.point), *self.followers[one.point.number].cells())
            table.add_row(*map(Text, cells))  # brackets in a value are no markup
        return table

    def say(self, text: str) -> None:
        self.live.console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def display_for(gpus: Sequence[str]) -> Iterator[Display]:
    """`gpus`: all of the sweep, as CUDA_VISIBLE_DEVICES names them."""
    if not sys.stdout.isatty():
        yield Lines()
        return
    table = LiveTable(gpus)
    with table.live:
        yield table
