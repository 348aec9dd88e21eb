from dataclasses import replace
from pathlib import Path

from conf.run_dir import RunDir
from launcher.sweep.points import Point, Result
from launcher.sweep.table import ended_line, exit_code, table_lines


def point(number: int, lr: str) -> Point:
    return Point(number, ("recipe=demo", f"optim.lr={lr}"), (f"optim.lr={lr}",))


FINISHED = Result(point(1, "0.1"), "finished", 0.5, "evaluation loss", RunDir(Path("/o/a")), seconds=61)
BETTER = Result(point(3, "0.3"), "finished", 0.25, "evaluation loss", RunDir(Path("/o/b")), seconds=5)
REFUSED = Result(point(2, "abc"), "refused", cause="optim.lr: no number")
STOPPED = Result(point(4, "0.4"), "stopped", run_dir=RunDir(Path("/o/c")), cause="stopped and saved")


def test_the_table_is_in_the_order_of_the_points_with_the_best_one_named() -> None:
    assert table_lines([REFUSED, BETTER, FINISHED]) == [
        "point  overrides     state     loss    run folder  cause",
        "1      optim.lr=0.1  finished  0.5000  /o/a",
        "2      optim.lr=abc  refused                       optim.lr: no number",
        "3      optim.lr=0.3  finished  0.2500  /o/b",
        "",
        "3 points: 2 finished, 1 refused",
        "best: point 3, evaluation loss 0.2500: optim.lr=0.3",
    ]


def test_a_training_loss_is_not_compared_with_evaluation_losses() -> None:
    trained = Result(point(2, "0.2"), "finished", 0.1, "loss")
    lines = table_lines([FINISHED, trained])
    assert "0.1000 (training)" in lines[2]
    assert not any(line.startswith("best") for line in lines)


def test_a_line_for_an_ended_point_tells_how_long_and_why() -> None:
    assert ended_line(FINISHED) == "point 1 finished in 1 min 01 s, evaluation loss 0.5000"
    assert ended_line(REFUSED) == "point 2 refused: optim.lr: no number"


def test_only_a_sweep_of_finished_points_ends_with_0() -> None:
    assert exit_code([FINISHED, BETTER]) == 0
    assert exit_code([FINISHED, REFUSED]) == 6
    assert exit_code([]) == 6


def test_a_sweep_that_was_stopped_ends_as_a_stopped_run_does() -> None:
    waiting = Result(point(5, "0.5"), "not started")
    assert exit_code([STOPPED]) == 75
    assert exit_code([FINISHED, STOPPED, waiting]) == 75
    assert exit_code([FINISHED, waiting]) == 130
    assert exit_code([REFUSED, STOPPED]) == 6


def test_a_sweep_of_refused_points_ends_as_a_refused_run_does() -> None:
    assert exit_code([REFUSED, REFUSED]) == 3
    misspelt = replace(REFUSED, refusal=2)
    assert exit_code([misspelt, misspelt]) == 2
    assert exit_code([misspelt, REFUSED]) == 6
