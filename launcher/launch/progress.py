"""Shows what a run does as it goes on: a bar with rate and time left on a terminal, a line for each logged step elsewhere."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from conf import journal
from conf.constants import STARTING, TRAINING
from conf.metrics import SHOWN, shown_of
from conf.records import is_doing, is_step, is_whole, parse_lines, read_lines
from conf.run_dir import RunDir
from conf.words import BAR_WIDTH, BETWEEN, duration, fitted


class Display(Protocol):
    def update(self) -> None: ...
    def say(self, text: str) -> None: ...


class Tail:
    """The lines added to progress.jsonl since the last look; opened anew each time, since it may not exist yet."""

    def __init__(self, run_dir: RunDir, from_start: bool) -> None:
        self.path = run_dir.progress
        self.offset = 0 if from_start or not self.path.exists() else self.path.stat().st_size

    def new_entries(self) -> list[dict[str, Any]]:
        return parse_lines(self.new_lines(), is_step).entries

    def new_lines(self) -> bytes:
        """Whole ones; a torn last line is left for later."""
        if not self.path.exists():
            return b""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        return whole


class Doing:
    """What the run does outside of its steps, and since when."""

    def __init__(self, run_dir: RunDir) -> None:
        self.run_dir, self.seen = run_dir, 0
        self.now, self.since = STARTING, 0.0

    def changes(self) -> list[dict[str, Any]]:
        """The lines added since the last look, each with what was done before it and for how long."""
        entries = read_lines(self.run_dir.doing, is_doing).entries
        if len(entries) < self.seen:  # a new attempt began, as after a requeue
            self.seen, self.now, self.since = 0, STARTING, 0.0
        if not self.since:
            self.since = started_at(self.run_dir)
        found = entries[self.seen :]
        self.seen += len(found)
        changes = []
        for entry in found:
            changes.append({**entry, "before": self.now, "seconds": max(0.0, entry["time"] - self.since)})
            self.now, self.since = entry["doing"], entry["time"]
        return changes

    def words(self) -> str:
        return f"{self.now}, {duration(max(0.0, time.time() - self.since))}"


def started_at(run_dir: RunDir) -> float:
    """Seconds since the epoch; of a run whose start is not recorded yet, now."""
    starts = [float(event["time"]) for event in journal.events(run_dir) if event["event"] == "start"]
    return starts[-1] if starts else time.time()


@dataclass(frozen=True)
class Expected:
    """What the plan knows of a run that helps to show it."""

    shown: tuple[str, ...] = ("loss",)  # what its stage is about, by the names of progress.jsonl
    steps: int | None = None
    flops_per_token: float = 0.0
    peak_flops: float = 0.0  # of all GPUs, FLOP/s; 0: unknown, and so is MFU
    damaged: bool = False  # nothing could be read of plan.json


def expected_of(run_dir: RunDir) -> Expected:
    try:
        plan = json.loads(run_dir.plan.read_text(encoding="utf-8"))
        shown, expected = shown_of(plan["run"]["stage"]["name"]), plan["expected"]
        steps = expected["steps"] if is_whole(expected["steps"]) else None
        return Expected(shown, steps, float(expected["flops_per_token"]), float(expected["peak_flops"] or 0.0))
    except FileNotFoundError:
        return Expected()
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return Expected(damaged=True)  # only what helps to show the run is lost


def measures(entry: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    """What an entry says of these values, as people read it; what was measured in an evaluation says so."""
    training = [SHOWN[name].text(entry[name]) for name in shown if name in entry]
    return training + [f"evaluation {SHOWN[name].text(entry[f'eval_{name}'])}" for name in shown if f"eval_{name}" in entry]


def facts(entry: Mapping[str, Any], expected: Expected) -> list[str]:
    """What one line of progress says, the most important first: what the stage is about, rate, MFU, padding."""
    parts = measures(entry, expected.shown)
    if "tokens_per_second" in entry:
        parts.append(f"{entry['tokens_per_second']:,.0f} tokens/s")
        if expected.peak_flops:
            parts.append(f"MFU {100 * entry['tokens_per_second'] * expected.flops_per_token / expected.peak_flops:.0f} %")
    if "padding" in entry:
        parts.append(f"padding {100 * entry['padding']:.0f} %")
    return parts


class Lines:
    """Plain lines for a log file."""

    def __init__(self, run_dir: RunDir, out: TextIO, from_start: bool) -> None:
        self.tail, self.doing, self.out = Tail(run_dir, from_start), Doing(run_dir), out
        self.expected = expected_of(run_dir)

    def update(self) -> None:
        for entry in sorted([*self.doing.changes(), *self.tail.new_entries()], key=lambda entry: float(entry.get("time", 0))):
            self.say(self.change(entry) if "doing" in entry else self.step(entry))

    def change(self, entry: Mapping[str, Any]) -> str:
        before = entry["before"]
        return f"{before[0].upper()}{before[1:]} took {duration(entry['seconds'])}. Now: {entry['doing']}."

    def step(self, entry: Mapping[str, Any]) -> str:
        left = f", {duration(entry['eta_seconds'])} left" if "eta_seconds" in entry else ""
        return f"step {entry['step']}/{entry['of']}: {BETWEEN.join(facts(entry, self.expected))}{left}"

    def say(self, text: str) -> None:
        print(text, file=self.out, flush=True)


class Bar:
    """A bar for people, in one line."""

    def __init__(self, run_dir: RunDir, from_start: bool) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self.tail, self.doing, self.expected = Tail(run_dir, from_start), Doing(run_dir), expected_of(run_dir)
        self.step: list[str] = []
        self.newest: dict[str, Any] = {}  # of each measure; ppo has its reward once for several steps
        words = TextColumn("{task.fields[words]}", markup=False, table_column=Column(no_wrap=True))
        self.progress = Progress(BarColumn(bar_width=BAR_WIDTH), words)
        self.task = self.progress.add_task("", total=None, words=STARTING)

    def update(self) -> None:
        self.doing.changes()
        for entry in self.tail.new_entries():
            if any(name.startswith("eval_") for name in entry):
                self.say(f"step {entry['step']}: {BETWEEN.join(facts(entry, self.expected))}")
                continue
            left = [f"{duration(entry['eta_seconds'])} left"] if "eta_seconds" in entry else []
            self.newest |= {name: entry[name] for name in self.expected.shown if name in entry}
            self.step = [f"{entry['step']}/{entry['of']}", *left, *facts({**self.newest, **entry}, self.expected)]
            self.progress.update(self.task, completed=entry["step"], total=entry["of"])
        parts = self.step if self.step and self.doing.now in (STARTING, TRAINING) else [*self.step[:1], self.doing.words()]
        self.progress.update(self.task, words=fitted(parts, self.progress.console.width - BAR_WIDTH - 1))

    def say(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False)


@contextmanager
def display_for(run_dir: RunDir, out: TextIO, from_start: bool = False) -> Iterator[Display]:
    if not out.isatty():
        yield Lines(run_dir, out, from_start)
        return
    bar = Bar(run_dir, from_start)
    with bar.progress:
        yield bar
