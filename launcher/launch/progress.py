"""Shows progress.jsonl as it grows: a bar with rate and ETA on a terminal, plain lines elsewhere."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from conf.run_dir import RunDir
from launcher.words import duration

LINE_SECONDS = 10.0  # at most one plain line in this time


class Display(Protocol):
    def update(self) -> None: ...
    def say(self, text: str) -> None: ...


class Tail:
    """The lines added to progress.jsonl since the last look; opened anew each time, since it may not exist yet."""

    def __init__(self, run_dir: RunDir, from_start: bool) -> None:
        self.path = run_dir.progress
        self.offset = 0 if from_start or not self.path.exists() else self.path.stat().st_size

    def new_entries(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


def model_flops_per_token(run_dir: RunDir) -> tuple[float, float]:
    """(FLOP a token, peak FLOP/s of all GPUs) as planned; zeros where MFU is unknown."""
    if not run_dir.plan.exists():
        return 0.0, 0.0
    expected = json.loads(run_dir.plan.read_text(encoding="utf-8"))["expected"]
    return float(expected["flops_per_token"]), float(expected["peak_flops"] or 0.0)


def sentence(entry: dict[str, Any], flops: tuple[float, float]) -> str:
    """One line of progress: loss, rate, MFU, padding."""
    parts = [f"{name} {entry[key]:.4f}" for key, name in (("loss", "loss"), ("eval_loss", "evaluation loss")) if key in entry]
    if "tokens_per_second" in entry:
        parts.append(f"{entry['tokens_per_second']:,.0f} tokens/s")
        if flops[1]:
            parts.append(f"MFU {100 * entry['tokens_per_second'] * flops[0] / flops[1]:.0f} %")
    if "padding" in entry:
        parts.append(f"padding {100 * entry['padding']:.0f} %")
    return " · ".join(parts)


class Lines:
    """Plain lines for a log file."""

    def __init__(self, run_dir: RunDir, out: TextIO, from_start: bool) -> None:
        self.tail, self.out, self.flops = Tail(run_dir, from_start), out, model_flops_per_token(run_dir)
        self.printed = -LINE_SECONDS

    def update(self) -> None:
        for entry in self.tail.new_entries():
            last = entry["step"] >= entry["of"]
            if "eval_loss" in entry or last or time.monotonic() - self.printed >= LINE_SECONDS:
                self.printed = time.monotonic()
                left = f", {duration(entry['eta_seconds'])} left" if "eta_seconds" in entry else ""
                self.say(f"step {entry['step']}/{entry['of']}: {sentence(entry, self.flops)}{left}")

    def say(self, text: str) -> None:
        print(text, file=self.out, flush=True)


class Bar:
    """A bar for people."""

    def __init__(self, run_dir: RunDir, from_start: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.tail, self.flops = Tail(run_dir, from_start), model_flops_per_token(run_dir)
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left {task.fields[left]}"),
            TextColumn("{task.fields[facts]}"),
        )  # fmt: skip
        self.task = self.progress.add_task("starting", total=None, facts="", left="?")

    def update(self) -> None:
        for entry in self.tail.new_entries():
            left = duration(entry["eta_seconds"]) if "eta_seconds" in entry else self.progress.tasks[0].fields["left"]
            facts = sentence(entry, self.flops)
            if "eval_loss" in entry:
                self.say(f"step {entry['step']}: {facts}")
                continue
            self.progress.update(self.task, description="training", completed=entry["step"], total=entry["of"], facts=facts, left=left)

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
