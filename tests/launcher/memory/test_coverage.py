"""The range of host memory on CPUs holds what was measured: computed from the raw records, with the present formulas. Of runs on GPUs
tests/benchmarks/memory/test_calibration.py counts how many are held."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.memory.cells import GRIDS, overrides, write_samples
from benchmarks.memory.chosen import write_shapes
from benchmarks.memory.measured import records
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run
from launcher.memory import uncertainty

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
CELLS = {cell.name: cell for grid in GRIDS.values() for group in grid for cell in group}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cells")
    write_shapes(path / "shapes")
    write_samples(path / "data")
    return path


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
    assert below == max(0.16, math.ceil(-100 * min(off.values())) / 100)  # 16 % less was seen elsewhere too
