"""What a sweep came to, from its ledger and the folders of its runs: the content of sweep.json and of the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from conf.records import is_step, read_lines
from launcher.sweep import ledger
from launcher.sweep.ledger import BEGUN, START, SweepDir
from launcher.sweep.points import Result
from launcher.sweep.table import best, result_as_dict


@dataclass(frozen=True)
class Attempt:
    """One start of a point. Times are seconds since the epoch."""

    point: int
    gpus: tuple[str, ...]  # as CUDA_VISIBLE_DEVICES names them; empty: it ran without
    started: float
    ended: float
    state: str  # as its end was recorded; empty where the sweep died before, and `ended` is the last that the ledger knows of that start


@dataclass(frozen=True)
class Curve:
    point: int
    training: tuple[tuple[int, float], ...]  # (step, loss)
    evaluation: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Summary:
    sweep_dir: SweepDir
    overrides: tuple[str, ...]  # of the newest start
    starts: tuple[float, ...]  # of the sweep, seconds since the epoch
    results: tuple[Result, ...]
    attempts: tuple[Attempt, ...]
    curves: tuple[Curve, ...]


def summary_of(sweep_dir: SweepDir, results: Sequence[Result]) -> Summary:
    events = ledger.events(sweep_dir)
    starts = tuple(float(event["time"]) for event in events if event["event"] == START)
    return Summary(
        sweep_dir, ledger.newest_start(sweep_dir).overrides, starts, tuple(results), tuple(attempts(events)), tuple(map(curve_of, results))
    )


def attempts(events: Sequence[dict[str, Any]]) -> list[Attempt]:
    """Each start of a point up to its recorded end, in the order of the starts."""
    found: list[Attempt] = []
    for at, event in enumerate(events):
        if event["event"] != BEGUN:
            continue
        same_start = until_next_start(events[at:])
        end = next((later for later in same_start[1:] if later.get("point") == event["point"]), None)
        state, ended = ("", same_start[-1]) if end is None else (end["event"], end)
        found.append(Attempt(event["point"], tuple(event.get("gpus") or ()), float(event["time"]), float(ended["time"]), state))
    return found


def until_next_start(events: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    end = next((at for at, event in enumerate(events) if event["event"] == START), len(events))
    return events[:end]


def curve_of(result: Result) -> Curve:
    entries = read_lines(result.run_dir.progress, is_step).entries if result.run_dir else []
    training, evaluation = (tuple((entry["step"], float(entry[key])) for entry in entries if key in entry) for key in ("loss", "eval_loss"))
    return Curve(result.point.number, training, evaluation)


def as_dict(summary: Summary) -> dict[str, Any]:
    """For programs: times in seconds since the epoch, losses as they were measured."""
    winner = best(summary.results)
    tries = [
        {"point": one.point, "gpus": list(one.gpus), "started": one.started, "ended": one.ended, "state": one.state or None}
        for one in summary.attempts
    ]
    return {
        "sweep_folder": str(summary.sweep_dir.path),
        "overrides": list(summary.overrides),
        "starts": list(summary.starts),
        "best": None if winner is None else winner.point.number,
        "points": [result_as_dict(result) for result in summary.results],
        "attempts": tries,
    }
