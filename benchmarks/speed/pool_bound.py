"""How near to the least possible time the pool's order comes: random sets of points on eight GPUs, in simulation, and some with real processes.

    python -m benchmarks.speed.pool_bound --out RESULTS.jsonl                    200 sets simulated: a second
    python -m benchmarks.speed.pool_bound --out RESULTS.jsonl --real 3           and the first three with real processes: a minute each

The order is that of launcher/sweep/schedule.py itself: at each end of a point `startable` chooses who begins. The bound is the larger of two, which
no schedule can pass: the GPU seconds of all points over eight GPUs, and the longest point. A set has 12 to 60 points of 1, 2, 4 or 8 GPUs, of which
small ones are the most frequent, each of 1 to 100 units of time. Each set is scheduled three times: the pool knows no times and goes by width alone;
it knows them exactly; it knows them with an error (a factor whose logarithm is normal with a deviation of ERROR: 17 % in the median, more than
docs/reference/measured_time.md has it). With real processes a point is one `sleep`, a unit is 0.1 s, and times are known with that error; the time is
that of the last end by the clock.
"""

import argparse
import heapq
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.running.cell_runs import surroundings
from launcher.sweep.schedule import Placement, Request, Resources, left_over, startable

GPUS, SETS, UNIT, ERROR = 8, 200, 0.1, 0.25
WIDTHS, WEIGHTS = (1, 2, 4, 8), (8, 4, 2, 1)
ALL = Resources(tuple(map(str, range(GPUS))), 1)


@dataclass(frozen=True)
class Point:
    number: int
    gpus: int
    seconds: float
    predicted: float | None = None


def drawn(seed: int) -> list[Point]:
    chance = random.Random(seed)
    count = chance.randint(12, 60)
    return [Point(number, chance.choices(WIDTHS, WEIGHTS)[0], float(chance.randint(1, 100))) for number in range(1, count + 1)]


def known(points: Sequence[Point]) -> list[Point]:
    return [replace(point, predicted=point.seconds) for point in points]


def guessed(points: Sequence[Point], seed: int) -> list[Point]:
    chance = random.Random(f"guessed {seed}")
    return [replace(point, predicted=point.seconds * chance.lognormvariate(0, ERROR)) for point in points]


def bound(points: Sequence[Point]) -> float:
    return max(sum(point.gpus * point.seconds for point in points) / GPUS, max(point.seconds for point in points))


def beginning(waiting: dict[int, Point], running: Sequence[Placement]) -> list[Placement]:
    """Who begins now; they are taken out of `waiting`."""
    free = left_over(ALL, [placement.gpus for placement in running])
    placements = startable([Request(point.number, point.gpus, seconds=point.predicted) for point in waiting.values()], free)
    for placement in placements:
        waiting.pop(placement.number)
    return placements


def simulated(points: Sequence[Point]) -> float:
    seconds, waiting = {point.number: point.seconds for point in points}, {point.number: point for point in points}
    running: dict[int, Placement] = {}
    ends: list[tuple[float, int]] = []
    now = 0.0
    while waiting or running:
        for placement in beginning(waiting, [*running.values()]):
            running[placement.number] = placement
            heapq.heappush(ends, (now + seconds[placement.number], placement.number))
        now, first = heapq.heappop(ends)
        running.pop(first)
    return now


def really(points: Sequence[Point]) -> float:
    """In units, with a process for each point."""
    seconds, waiting = {point.number: point.seconds for point in points}, {point.number: point for point in points}
    running: dict[int, tuple[Placement, subprocess.Popen[bytes]]] = {}
    began = time.monotonic()
    while waiting or running:
        for placement in beginning(waiting, [placement for placement, _ in running.values()]):
            running[placement.number] = (placement, subprocess.Popen(("sleep", str(seconds[placement.number] * UNIT))))
        running = {number: pair for number, pair in running.items() if pair[1].poll() is None}
        time.sleep(UNIT / 10)
    return (time.monotonic() - began) / UNIT


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a line for each set and one for all are appended to this file")
    parser.add_argument("--real", type=int, default=0, help="so many of the sets with real processes too")
    options = parser.parse_args()
    found: dict[str, dict[int, list[float]]] = {}  # by what the pool knows, and by how many points the set has, in tens
    with options.out.open("a", encoding="utf-8") as file:
        for seed in range(SETS):
            points = drawn(seed)
            ways = {"widths": points, "times": known(points), "guessed times": guessed(points, seed)}
            least, took = bound(points), {name: simulated(way) for name, way in ways.items()}
            for name, seconds in took.items():
                found.setdefault(name, {}).setdefault(len(points) // 10 * 10, []).append(seconds / least)
            line = {"probe": "pool_bound", "seed": seed, "points": len(points), "bound": least, "simulated": took}
            line |= {"real": round(really(ways["guessed times"]), 2)} if seed < options.real else {}
            file.write(json.dumps(line) + "\n")
        for name, groups in found.items():
            shown = {"all": spread([ratio for ratios in groups.values() for ratio in ratios])}
            shown |= {f"{tens} to {tens + 9} points": spread(ratios) for tens, ratios in sorted(groups.items())}
            file.write(json.dumps({"probe": "pool_bound", "known": name, **shown, **surroundings()}) + "\n")
            for group, ratios in shown.items():
                print(f"{name}, {group}: {ratios['sets']} sets, {ratios['median']} of the bound, 95th percentile {ratios['95th percentile']}")
    return 0


def spread(ratios: Sequence[float]) -> dict[str, float]:
    ninety_fifth, median = statistics.quantiles(ratios, n=20)[-1], statistics.median(ratios)
    return {"sets": len(ratios), "median": round(median, 4), "95th percentile": round(ninety_fifth, 4), "worst": round(max(ratios), 4)}


if __name__ == "__main__":
    sys.exit(main())
