"""Curves as they are drawn: every value once, no peak lost."""

import json
import random
from array import array
from itertools import pairwise
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from launcher.board.axes import AXES, STEP, TIME, TOKENS
from launcher.board.curves import SMOOTHINGS, AllCurves, smoothing
from launcher.board.series import BUCKETS, Series, smoothed, thinned


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


def test_steps_added_at_once_are_those_added_one_by_one() -> None:
    drawn = random.Random(3)
    for _ in range(300):
        one_by_one, at_once = Series(), Series()
        for _ in range(4):
            steps = sorted(drawn.sample(range(20), 5)) if drawn.random() < 0.7 else [drawn.randrange(20) for _ in range(5)]
            values = [drawn.choice([1.0, 2, float("nan"), float("inf")] if drawn.random() < 0.3 else [0.5, 3]) for _ in steps]
            for step, value in zip(steps, values, strict=True):
                one_by_one.add(step, float(value))
            at_once.extend(steps, values, rising=all(left < right for left, right in pairwise(steps)))
        assert at_once == one_by_one


def test_time_and_tokens_until_a_step_by_hand(tmp_path: Path) -> None:
    """50 tokens a second. From the end of the evaluation at step 20 to step 30 it is 10 s, so 500 tokens, as from step 10 to 20.

    No line tells the seconds of the first ten steps, and of the ten after the start from step 30: they count as the ten after them, 500 and 800.
    """
    run_dir = RunDir(tmp_path)
    trained = [(10, 100.0, 50.0), (20, 110.0, 50.0), (30, 125.0, 50.0), (40, 900.0, 60.0), (50, 910.0, 80.0)]
    for step, time, rate in trained:
        more = {"resumed_from": 30} if step == 40 else {}
        write(run_dir, {"step": step, "of": 50, "time": time, "loss": 1.0, "tokens_per_second": rate, **more})
        if step == 20:
            write(run_dir, {"step": 20, "of": 50, "time": 115.0, "eval_loss": 2.0})
    curves = AllCurves().of(run_dir)
    assert [curves.clock.known(axis) for axis in (*AXES, "x")] == [*AXES, STEP]
    over = {axis: curves.charts(axis=axis)[0] for axis in AXES}
    assert over[TIME]["training"]["x"] == [0.0, 10.0, 25.0, 800.0, 810.0]
    assert over[TOKENS]["training"]["x"] == [500.0, 1000.0, 1500.0, 2300.0, 3100.0]
    assert (over[TIME]["evaluation"]["x"], over[TOKENS]["evaluation"]["x"]) == ([10.0], [1000.0])
    assert "x" not in over[STEP]["training"]
    assert [chart["name"] for chart in curves.charts()] == ["loss", "tokens_per_second"]  # where it went on is no measure
    assert [*map(curves.clock.over(TOKENS), curves.clock.restarts)] == [1500.0]


def test_a_run_whose_lines_have_no_time_is_drawn_over_steps(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    write(run_dir, {"step": 1, "of": 2, "loss": 1.0, "tokens_per_second": 5.0})
    assert [AllCurves().of(run_dir).clock.known(axis) for axis in AXES] == [STEP, STEP, STEP]


def test_a_file_with_numbers_that_no_run_writes_is_drawn_without_them(tmp_path: Path) -> None:
    run_dir, every = RunDir(tmp_path), AllCurves()
    rates = (5, 10**400, 1e308, -3.0, 5)
    write(run_dir, *({"step": step, "of": 9, "loss": 1.0, "time": 100.0 + step, "tokens_per_second": rate} for step, rate in enumerate(rates)))
    write(run_dir, *({"step": 5, "of": 9, "loss": 10**400, "resumed_from": odd} for odd in (10**400, float("nan"), float("inf"), 3)))
    curves = every.of(run_dir)
    assert curves.clock.restarts == {3}
    for axis in AXES:
        drawn = {chart["name"]: chart["training"] for chart in curves.charts(axis=axis)}
        json.dumps(drawn, allow_nan=False)  # as a page is answered
        assert (drawn["loss"]["steps"], drawn["loss"]["not_finite"]) == ([0, 1, 2, 3, 4], [5])
        assert drawn["loss"].get("x", []) == sorted(drawn["loss"].get("x", []))
