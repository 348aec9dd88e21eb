"""What earlier starts of a run on Slurm took, by its records, and whether the warning and the limit of its next job leave room for that."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from statistics import median
from typing import Any

from conf import journal
from conf.constants import TRAINING
from conf.records import is_doing, is_step, read_lines
from conf.run_dir import RunDir
from conf.schema import Composed, Run, Slurm
from launcher.errors import ConfigError
from launcher.rules.slurm import SLURM_EARLY, START, as_time, seconds_of

MARGIN = 1.5  # of what is proposed, over what was measured: the next node or file system may be slower


@dataclass(frozen=True)
class Times:
    """Seconds; None where no earlier start got so far."""

    start: float | None  # from the start of the ranks to the first step
    step: float | None
    save: float | None  # from the end of a step to its committed checkpoint


def measured_times(run_dir: RunDir) -> Times:
    """Of the newest start for the start-up, and the longest save of all starts."""
    events, steps = journal.events(run_dir), read_lines(run_dir.progress, is_step).entries
    doing = read_lines(run_dir.doing, is_doing).entries
    return Times(start_of(events, doing), step_of(events, steps), save_of(events, steps))


def start_of(events: Sequence[dict[str, Any]], doing: Sequence[dict[str, Any]]) -> float | None:
    begun = [event["time"] for event in events if event["event"] == journal.Started.event]
    trained = [entry["time"] for entry in doing if entry["doing"] == TRAINING]
    starts = [moment - max(before) for moment in trained if (before := [each for each in begun if each <= moment])]
    return starts[-1] if starts else None


def step_of(events: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]]) -> float | None:
    """The median over logged steps between which nothing was committed or started."""
    logged, between = [entry for entry in steps if "loss" in entry], [event["time"] for event in events]
    taken = [
        (later["time"] - entry["time"]) / (later["step"] - entry["step"])
        for entry, later in pairwise(logged)
        if later["step"] > entry["step"] and not any(entry["time"] < moment <= later["time"] for moment in between)
    ]
    return median(taken) if taken else None


def save_of(events: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]]) -> float | None:
    """A step with an evaluation is left out: it is evaluated before it is saved, and a run that is asked to stop is not evaluated."""
    evaluated = {entry["step"] for entry in steps if "eval_loss" in entry}
    ended = [(entry["step"], entry["time"]) for entry in steps if "loss" in entry and entry["step"] not in evaluated]
    commits = [(event["step"], event["time"]) for event in events if event["event"] == journal.Committed.event]
    taken = [min(waits) for step, time in commits if (waits := [time - moment for number, moment in ended if number == step and moment <= time])]
    return max(taken, default=None)


def refuse_by_times(run: Composed | Run, run_dir: RunDir) -> None:
    """Before a run is submitted again. Its first submission knows nothing measured; launcher/rules/slurm.py judges that one.

    Raises:
        ConfigError: where the warning comes later than one step and one save need, or the limit ends the job before it trains.
    """
    cluster = run.cluster
    if not isinstance(cluster, Slurm) or cluster.time is None:
        return
    times = measured_times(run_dir)
    lead, again = cluster.signal_seconds, f"regimen train resume={run_dir.path}"
    if times.save is not None and (needed := (times.step or 0.0) + times.save) > lead:
        raise ConfigError(
            f"cluster.signal_seconds={lead} is too short for this run: one step and one save took {needed:.0f} s in its earlier starts, so that the "
            f"time limit would end the job before it has saved. Go on with: {again} cluster.signal_seconds={ceil(MARGIN * needed)}"
        )
    least = lead + SLURM_EARLY + (times.start or 0.0)
    if times.start is not None and times.start > START and seconds_of(cluster.time) < least:
        raise ConfigError(
            f"cluster.time={cluster.time} leaves no time to train: the last start of this run took {times.start:.0f} s to its first step, and Slurm "
            f"warns the run cluster.signal_seconds={lead} before the limit, and up to {SLURM_EARLY} s earlier. "
            f"Go on with: {again} cluster.time={as_time(ceil(lead + SLURM_EARLY + MARGIN * times.start))}"
        )
