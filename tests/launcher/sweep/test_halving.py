"""Successive halving: which points go on, and for how many steps."""

from pathlib import Path

import pytest

from launcher.errors import ConfigError
from launcher.sweep.halving import best_of, run_rounds, steps_of_rounds
from launcher.sweep.multirun import multirun

TOO_SMALL = ["recipe=demo", "node=cpu", "node.host_memory=100000000", "hydra/sweeper=halving"]


def rates(*values: float) -> list[list[str]]:
    return [["training.max_steps=90", f"optim.lr={value}"] for value in values]


def test_each_round_has_so_many_times_the_steps_of_the_one_before_and_the_last_has_all() -> None:
    assert steps_of_rounds(90, 3, 3) == [10, 30, 90]
    with pytest.raises(ConfigError, match=r"training\.max_steps=8 is too little for 3 rounds"):
        steps_of_rounds(8, 3, 3)


def test_one_in_so_many_goes_on_and_what_has_no_result_never_does() -> None:
    assert best_of([3.0, 1.0, 2.0, None, 0.5, 4.0], 3) == [4, 1]
    assert best_of([None, 7.0], 3) == [1]
    assert best_of([None, None], 3) == []


def test_the_best_of_a_round_are_trained_for_longer_in_the_next() -> None:
    rounds: list[list[list[str]]] = []

    def train(points: list[list[str]]) -> list[float | None]:
        rounds.append(points)
        return [abs(float(text.partition("=")[2]) - 5.0) for _, text in points]

    assert run_rounds(rates(1, 2, 3, 4, 5, 6, 7, 8, 9), 3, 3, train) == [0.0]  # type: ignore[arg-type]
    assert [points[0][0] for points in rounds] == [f"training.max_steps={steps}" for steps in (10, 30, 90)]
    assert [[point[1].partition("=")[2] for point in points] for points in rounds[1:]] == [["5", "4", "6"], ["5"]]


@pytest.mark.parametrize(("given", "steps"), [((1,), [90]), ((1, 2), [10, 90])])
def test_a_point_that_is_alone_is_trained_once_for_all_steps(given: tuple[float, ...], steps: list[int]) -> None:
    trained: list[str] = []
    run_rounds(rates(*given), 3, 3, lambda points: [trained.append(points[0][0]) or 1.0 for _ in points][: len(points)])  # type: ignore[func-returns-value]
    assert list(dict.fromkeys(trained)) == [f"training.max_steps={count}" for count in steps]


def test_nothing_goes_on_where_nothing_was_measured() -> None:
    assert run_rounds(rates(1, 2), 2, 2, lambda points: [None] * len(points)) == [None, None]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["optim.lr=1,2"], r"give one training\.max_steps=N"),
        (["optim.lr=1,2", "training.max_steps=90", "hydra.sweeper.factor=1"], r"hydra\.sweeper\.factor=1 is out of range"),
        (["optim.lr=1,2", "training.max_steps=90", "hydra.sweeper.rounds=two"], r"hydra\.sweeper\.rounds=two is out of range"),
    ],
)
def test_what_halving_lacks_is_one_message_and_no_folder(given: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        multirun([*TOO_SMALL, *given], [])
    assert list(tmp_path.iterdir()) == []


def test_refused_points_end_with_the_first_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert multirun([*TOO_SMALL, "optim.lr=1e-3,2e-3", "training.max_steps=90"], []) == 3
    said = capsys.readouterr().out
    assert "2 points: 2 refused" in said
    assert "training.max_steps=10 optim.lr=0.001" in said or "optim.lr=0.001 training.max_steps=10" in said
