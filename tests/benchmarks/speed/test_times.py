"""The cells of predicted against measured time: how they are drawn, and the report."""

import random

from benchmarks.speed.times import GRIDS, draw, error_of, report


def line(predicted: float, measured: float) -> dict:
    terms = {"waiting for the host": predicted / 4}
    told = {"step": predicted, "low": predicted / 1.1, "high": predicted * 1.1, "terms": terms}
    return {"cell": f"cell of {measured}", "exit_code": 0, "predicted": told, "step": measured}


def test_a_seed_draws_the_same_cells() -> None:
    first, second = (draw(random.Random(3), 7, GRIDS["drawn"]) for _ in range(2))
    assert first == second
    assert first.name.startswith("07/")
    assert len({draw(random.Random(seed), 0, GRIDS["drawn"]).overrides for seed in range(20)}) > 15


def test_answers_are_compared_by_the_plain_kernels() -> None:
    drawn = [draw(random.Random(seed), 0, GRIDS["drawn"]) for seed in range(200)]
    compared = [cell for cell in drawn if "stage=dpo" in cell.overrides]
    assert compared
    assert all({"training.kernels=plain", "training.loss=plain"} <= set(cell.overrides) for cell in compared)
    assert all(grid.tokens[0] < grid.tokens[1] for grid in GRIDS.values())


def test_the_report_has_the_median_the_worst_and_the_range() -> None:
    lines = [line(1.1, 1.0), line(2.0, 2.0), line(1.5, 2.0), {"cell": "lost", "exit_code": 80, "error": "no memory", "predicted": {}}]
    assert error_of(lines[2]) == -0.25
    said = report(lines)
    assert "3 cells: median 10.0%, worst 25.0%; 2 of 3 inside of the stated range" in said
    assert "lost" in said
    assert "failed with 80: no memory" in said
