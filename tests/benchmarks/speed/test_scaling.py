"""Cells of one and two GPUs: what is compared with what, who trains together, and what a trace of two ranks is summed up to."""

import json
from pathlib import Path

import pytest

from benchmarks.speed.scaling import Started, turns
from benchmarks.speed.scaling_cells import CELLS
from benchmarks.speed.scaling_tables import MEASURED, SETTINGS, row, scaling_lines, share_of, two_gpu_lines
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
    found = turns(loaded, gpus=2)

    assert sorted(started.cell.name for turn in found for started in turn) == sorted(cell.name for cell in CELLS)
    assert all(len(turn) == 1 for turn in found if turn[0].cell.gpus == 2)
    assert all(started.cell.gpus == 1 for turn in found if len(turn) == 2 for started in turn)
    assert all(len(turn) == 1 for turn in turns(loaded, gpus=1))


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


def line(cell: str, rate: float, predicted: float, exit_code: int = 0) -> dict[str, object]:
    facts = {"date": "2026-01-02", "gpus": ["NVIDIA H200, 143771 MiB"]}
    found = {"step": 0.2, "tokens_per_second": rate, "allocated": 2**30, "predicted": {"step": predicted}, "predicted_allocated": 2**31}
    return {"cell": cell, "exit_code": exit_code, "surroundings": facts, **found}


def test_a_row_says_the_share_of_one_gpu_and_how_far_its_time_was_off() -> None:
    cells = {cell.name: cell for cell in CELLS}
    found = {name: line(name, rate, 0.22) for name, rate in (("1b-full/1/fused", 1000.0), ("1b-full/2/ddp", 970.0))}

    assert share_of(cells["1b-full/2/ddp"], found) == pytest.approx(0.97)
    assert row(cells["1b-full/2/ddp"], found) == "| 1b-full | 2 | ddp |  | 970 | 97.0% | 96% | 200.0 | 220.0 | +10.0% | 1.00 | 2.00 |"


def test_the_page_shows_the_last_run_of_a_cell_that_ended_well_and_nothing_where_there_is_none(tmp_path: Path) -> None:
    assert scaling_lines(tmp_path) == two_gpu_lines(tmp_path) == []
    (tmp_path / "speed").mkdir()
    lines = [line("1b-full/2/ddp", 900, 0.2), line("1b-full/2/ddp", 950, 0.25), line("1b-full/2/ddp", 1, 1, exit_code=1)]
    (tmp_path / MEASURED).write_text("".join(json.dumps(each) + "\n" for each in lines))

    text = "\n".join(scaling_lines(tmp_path))
    assert "| 950 |" in text
    assert "| 900 |" not in text
    assert "median 25.0%, worst 25.0% off" in "\n".join(two_gpu_lines(tmp_path))


def test_every_setting_that_differs_is_named() -> None:
    named = {"/".join(cell.name.split("/")[2:]) for cell in CELLS if cell.name.count("/") > 2}
    assert named == set(SETTINGS)
