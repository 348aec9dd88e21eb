"""The rates that were fitted, against the lines they were fitted to; and the order of their combinations."""

import statistics
from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks.speed.rates import Timed, timed_runs
from launcher.timing.step import step_time

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results" / "speed"


@pytest.fixture(scope="module")
def runs() -> list[Timed]:
    return timed_runs(RESULTS / "h200_fit.jsonl")


def test_the_seconds_of_the_recorded_combinations_are_followed(runs: list[Timed]) -> None:
    """Half of them waited for a host that was starting other runs, which took longer than one that is left alone."""
    found = [(step_time(run.run, run.facts), run.seconds) for run in runs]
    errors = [abs(each.seconds / seconds - 1) for each, seconds in found]
    by_gpu = [abs(each.seconds / seconds - 1) for each, seconds in found if "waits for the host" not in each.source]
    assert len(errors) == 51
    assert statistics.median(errors) < 0.1
    assert max(errors) < 0.5
    assert statistics.median(by_gpu) < 0.04
    assert max(by_gpu) < 0.3


def test_in_every_recorded_job_the_first_in_the_order_is_within_5_percent_of_the_fastest(runs: list[Timed]) -> None:
    jobs = defaultdict(list)
    for run in runs:
        jobs[run.name.split("/")[0]].append(run)
    assert len(jobs) == 6
    for combinations in jobs.values():
        first = min(combinations, key=lambda run: step_time(run.run, run.facts).seconds)
        assert first.seconds <= 1.05 * min(run.seconds for run in combinations)
