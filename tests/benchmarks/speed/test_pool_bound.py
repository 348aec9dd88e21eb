"""The sets of the pool's order: what no schedule can pass, and what the order comes to, worked out by hand."""

import json
from pathlib import Path

from benchmarks.speed.pool_bound import Point, bound, drawn, really, simulated

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks/results/speed/pool_bound.jsonl"


def test_the_bound_is_the_work_over_all_gpus_or_the_longest_point() -> None:
    assert bound([Point(1, 8, 10.0), Point(2, 4, 6.0)]) == 13.0  # 80 + 24 GPU seconds over 8
    assert bound([Point(1, 1, 50.0), Point(2, 1, 10.0)]) == 50.0


def test_the_order_of_the_pool_is_that_of_its_schedule() -> None:
    """The eight first, then 4 + 4, then 2 in the place of the shorter 4."""
    points = [Point(1, 4, 10.0), Point(2, 8, 10.0), Point(3, 4, 20.0), Point(4, 2, 15.0)]
    assert simulated(points) == 35.0


def test_real_processes_take_no_less_than_the_bound() -> None:
    points = [Point(1, 8, 2.0), Point(2, 4, 2.0), Point(3, 4, 2.0)]
    assert really(points) >= bound(points)


def test_the_committed_lines_are_those_of_the_present_order() -> None:
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    sets = [line for line in lines if "seed" in line]
    assert len(sets) == 200
    for line in sets[:20]:
        points = drawn(line["seed"])
        assert (line["points"], line["bound"], line["simulated"]) == (len(points), bound(points), simulated(points))
    assert all(line["bound"] <= line["real"] for line in sets if "real" in line)
