"""Curves as they are drawn: every value once, no peak lost."""

import json
import random
from array import array
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from launcher.board.curves import BUCKETS, SMOOTHINGS, AllCurves, Series, smoothed, smoothing, thinned


def write(run_dir: RunDir, *entries: dict[str, float], mode: str = "a") -> None:
    with run_dir.progress.open(mode) as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)


def test_of_many_values_the_highest_and_the_lowest_are_kept() -> None:
    drawn = random.Random(0)
    values = array("d", (drawn.random() for _ in range(100_000)))
    values[54_321], values[12_345] = 99.0, -99.0
    chosen = thinned(values, BUCKETS)
    assert len(chosen) <= 2 * BUCKETS + 2
    assert {0, 12_345, 54_321, 99_999} <= set(chosen)
    assert chosen == sorted(chosen)


def test_few_values_are_all_drawn() -> None:
    assert thinned(array("d", [3.0, 1.0, 2.0]), BUCKETS) == [0, 1, 2]


def test_lines_that_were_added_are_read_once_and_steps_made_again_replace_the_old_ones(tmp_path: Path) -> None:
    run_dir, every = RunDir(tmp_path), AllCurves()
    assert every.of(run_dir).charts() == []
    write(run_dir, *({"step": step, "of": 9, "loss": float(step)} for step in range(1, 7)))
    assert every.of(run_dir).charts()[0]["training"]["steps"] == [1, 2, 3, 4, 5, 6]
    write(run_dir, {"step": 4, "of": 9, "loss": 40.0}, {"step": 5, "of": 9, "loss": 50.0})
    [loss] = every.of(run_dir).charts()
    assert (loss["training"]["steps"], loss["training"]["values"]) == ([1, 2, 3, 4, 5], [1.0, 2.0, 3.0, 40.0, 50.0])
    write(run_dir, {"step": 1, "of": 9, "loss": 7.0}, mode="w")
    assert every.of(run_dir).charts()[0]["training"]["values"] == [7.0]


def test_what_is_not_finite_is_named_and_not_drawn(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    write(run_dir, {"step": 1, "of": 3, "loss": 1.0}, {"step": 2, "of": 3, "loss": float("nan")}, {"step": 3, "of": 3, "loss": 2.0})
    [loss] = AllCurves().of(run_dir).charts()
    assert loss["training"] == {"steps": [1, 3], "values": [1.0, 2.0], "not_finite": [2]}
    assert json.loads(json.dumps(loss, allow_nan=False)) == loss


def test_smoothing_never_leaves_the_values_and_keeps_those_of_a_constant() -> None:
    drawn = random.Random(1)
    for keep in map(float, SMOOTHINGS):
        for scale in (1e-300, 1e-7, 1.0, 1e12):
            values = array("d", (scale * drawn.uniform(-1, 1) for _ in range(500)))
            made = smoothed(values, keep)
            assert made[0] == values[0]
            assert all(min(values[: at + 1]) <= value <= max(values[: at + 1]) for at, value in enumerate(made))
        assert smoothed(array("d", [0.1] * 50), keep) == [0.1] * 50


def test_smoothed_values_are_made_of_every_value_by_hand(tmp_path: Path) -> None:
    """With 0.6 kept, the weights of three values are 0.36, 0.6 and 1, and their average (0.36 * 4 + 0.6 * 2 + 1 * 8) / 1.96."""
    run_dir = RunDir(tmp_path)
    write(run_dir, *({"step": step, "of": 3, "loss": loss, "eval_loss": loss} for step, loss in ((1, 4.0), (2, 2.0), (3, 8.0))))
    [loss] = AllCurves().of(run_dir).charts(smoothing("0.6"))
    assert loss["training"]["values"] == [4.0, 2.0, 8.0]
    assert loss["training"]["smoothed"] == pytest.approx([4.0, (0.6 * 4 + 2) / 1.6, (0.36 * 4 + 0.6 * 2 + 8) / 1.96])
    assert "smoothed" not in loss["evaluation"]
    assert [smoothing(text) for text in ("", "0.5", "x", "0.97")] == [0.0, 0.0, 0.0, 0.97]


def test_of_many_values_each_smoothed_one_is_that_of_its_step() -> None:
    drawn, series = random.Random(2), Series()
    for step in range(10_000):
        series.add(step, drawn.random())
    shown, whole = series.thinned(0.9), smoothed(series.values, 0.9)
    assert shown["smoothed"] == [whole[step] for step in shown["steps"]]
    assert shown["values"] == series.thinned()["values"]
