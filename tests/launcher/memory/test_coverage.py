"""The ranges that a plan states hold what was measured: computed from the raw records, with the present formulas."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.memory.cells import GRIDS, MORE_SHAPES, overrides, predict, write_samples
from benchmarks.memory.chosen import write_shapes
from benchmarks.memory.tables import FILES, MENDED, records, seen_by_driver
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.gate.judge import judge_run
from launcher.memory import uncertainty

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
CELLS = {cell.name: cell for grid in GRIDS.values() for group in grid for cell in group}
SOME = 25  # of so many cells one is looked at in every test run, the others in the long ones


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cells")
    write_shapes(path / "shapes", MORE_SHAPES)
    write_samples(path / "data")
    return path


def measured(key: tuple[str, int], work: Path, every: int) -> Iterator[tuple[str, dict, list[dict]]]:
    """Name, present prediction and measurements of the ranks; cells that would be refused today are left out."""
    for record in [record for record in records(RESULTS / FILES[key]) if record["cell"] not in MENDED][::every]:
        try:
            yield record["cell"], predict(CELLS[record["cell"]], work / "data", work / "shapes")["memory"], record["measured"]
        except ConfigError:
            continue


def sizes(predicted: dict, ranks: list[dict]) -> dict[str, int]:
    outside = sum(predicted["outside"].values())
    found = {"nvml": max(seen_by_driver(rank, outside) for rank in ranks)}
    return found | ({"host": sum(rank["host"] for rank in ranks)} if all("host_phases" in rank for rank in ranks) else {})


@pytest.mark.parametrize("key", FILES, ids=str)
def test_some_cells_lie_within_the_stated_ranges(key: tuple[str, int], work: Path) -> None:
    for cell, predicted, ranks in measured(key, work, SOME):
        share = predicted["uncertainty"]["share"]
        assert predicted["allocated"] * (1 - share) <= max(rank["allocated"] for rank in ranks) <= predicted["allocated"] * (1 + share), cell
        for name, size in sizes(predicted, ranks).items():
            assert predicted["ranges"][name]["low"] <= size <= predicted["ranges"][name]["high"], (cell, name)


@pytest.mark.long
@pytest.mark.parametrize("gpus", [1, 2])
def test_the_stated_shares_are_the_extremes_of_all_cells_rounded_outwards(gpus: int, work: Path) -> None:
    off: dict[str, list[float]] = {"nvml": [], "host": []}
    for key in FILES:
        for cell, predicted, ranks in measured(key, work, 1) if key[1] == gpus else ():
            share = predicted["uncertainty"]["share"]
            assert abs(max(rank["allocated"] for rank in ranks) / predicted["allocated"] - 1) <= share, cell
            for name, size in sizes(predicted, ranks).items():
                off[name].append(size / predicted[name] - 1)
    stated = {
        "nvml": uncertainty.DRIVER_ONE if gpus == 1 else uncertainty.DRIVER_SEVERAL,
        "host": uncertainty.HOST_ONE if gpus == 1 else uncertainty.HOST_SEVERAL,
    }
    for name, (below, above) in stated.items():
        assert above == math.ceil(100 * max(off[name])) / 100
        # that of several GPUs is no narrower than that of one
        assert below >= math.ceil(-100 * min(off[name])) / 100
        assert gpus > 1 or below == math.ceil(-100 * min(off[name])) / 100


def on_cpus(work: Path) -> Iterator[tuple[str, float]]:
    """Name, and measured over predicted host memory, of every cell on CPUs."""
    for record in records(RESULTS / "memory" / "cpu.jsonl"):
        given = overrides(CELLS[record["cell"]], work / "data")
        predicted = judge_run(compose([*given, "node=cpu", "node.host_memory=64GiB"], [work / "shapes"])).estimate
        yield record["cell"], sum(rank["host"] for rank in record["measured"]) / predicted.host - 1


def test_the_shares_on_cpus_hold_every_run_on_record(work: Path) -> None:
    off = dict(on_cpus(work))
    below, above = uncertainty.HOST_CPUS
    assert len(off) >= 10
    assert above == math.ceil(100 * max(off.values())) / 100
    assert below == max(0.16, math.ceil(-100 * min(off.values())) / 100)  # 16 % less was seen, but is not on record
