"""The sets of the pool's order: what no schedule can pass, and what the order comes to, worked out by hand."""

import json
from pathlib import Path

from benchmarks.speed.pool_bound import Point, bound, drawn, guessed, known, really, simulated

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks/results/speed/pool_bound.jsonl"


def test_the_bound_is_the_work_over_all_gpus_or_the_longest_point() -> None:
    assert bound([Point(1, 8, 10.0), Point(2, 4, 6.0)]) == 13.0  # 80 + 24 GPU seconds over 8
    assert bound([Point(1, 1, 50.0), Point(2, 1, 10.0)]) == 50.0


def test_the_order_of_the_pool_is_that_of_its_schedule() -> None:
    """The eight first, then 4 + 4, then 2 in the place of the shorter 4."""
    points = [Point(1, 4, 10.0), Point(2, 8, 10.0), Point(3, 4, 20.0), Point(4, 2, 15.0)]
    assert simulated(points) == 35.0


def test_known_times_put_the_most_gpu_seconds_first() -> None:
    """4 x 20 and 8 x 10 are alike, so by number: the eight, then both fours, and the 30 of the two beside the shorter one."""
    points = known([Point(1, 8, 10.0), Point(2, 4, 20.0), Point(3, 4, 10.0), Point(4, 2, 15.0)])
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
        assert (line["points"], line["bound"]) == (len(points), bound(points))
        ways = {"widths": points, "times": known(points), "guessed times": guessed(points, line["seed"])}
        assert line["simulated"] == {name: simulated(way) for name, way in ways.items()}
    assert all(line["bound"] <= line["real"] for line in sets if "real" in line)
