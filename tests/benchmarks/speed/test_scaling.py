"""Cells of one and two GPUs: what is compared with what, who trains together, and what a trace of two ranks is summed up to."""

from pathlib import Path

import pytest

from benchmarks.speed.scaling import Started, turns
from benchmarks.speed.scaling_cells import CELLS
from benchmarks.speed.scaling_trace import Kernel, summed_up, union


def test_every_cell_is_compared_with_one_gpu_by_the_same_kernels() -> None:
    found = {cell.name: cell for cell in CELLS}

    assert len(found) == len(CELLS)
    for cell in CELLS:
        one = found[cell.compared]
        assert (one.gpus, one.sharding, one.job, one.plain) == (1, "ddp", cell.job, cell.plain)


def test_goals_are_those_of_two_gpus_alone() -> None:
    assert all(cell.gpus == 2 for cell in CELLS if cell.goal is not None)


def test_cells_of_one_gpu_train_two_at_a_time_and_others_alone(tmp_path: Path) -> None:
    loaded = [Started(cell, {}, tmp_path) for cell in CELLS]
    found = turns(loaded)

    assert sorted(started.cell.name for turn in found for started in turn) == sorted(cell.name for cell in CELLS)
    assert all(len(turn) == 1 for turn in found if turn[0].cell.gpus == 2)
    assert all(started.cell.gpus == 1 for turn in found if len(turn) == 2 for started in turn)


def test_spans_that_overlap_or_touch_become_one() -> None:
    assert union([(4, 5), (0, 2), (1, 3), (3, 3.5)]) == [(0, 3.5), (4, 5)]


def test_what_goes_between_gpus_is_exposed_where_nothing_else_runs() -> None:
    """Of four seconds: one of products alone, one of both, one of NCCL alone, one of nothing."""
    kernels = [Kernel("nvjet_gemm", 0, 2), Kernel("ncclDevKernel_AllReduce_Sum_bf16", 1, 3)]
    found = summed_up(kernels, seconds=4, steps=2)

    assert (found["step"], found["computing"], found["between_gpus"]) == (2000, 1000, 1000)
    assert (found["exposed"], found["idle"]) == (500, 500)
    assert found["groups"] == {"matrix products": 1000, "between GPUs": 1000}
    assert found["kernels"][0]["calls"] == pytest.approx(0.5)
