"""Kernels of a step, counted against those that torch's profiler saw on an H200."""

import json
from pathlib import Path

import pytest

from benchmarks.speed.times_page import counted_kernels

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results" / "speed"
PROFILED = [json.loads(line) for line in (RESULTS / "h200_step_profiles.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("line", PROFILED, ids=lambda line: line["cell"])
def test_kernels_are_counted_within_a_fifth(line: dict) -> None:
    seen = line["gpu"]["kernels"] + line["gpu"]["copies"]
    assert counted_kernels(line) == pytest.approx(seen, rel=0.2)
