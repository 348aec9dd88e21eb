import json
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from launcher.errors import DiskError
from launcher.sweep import ledger
from launcher.sweep.points import Point, Result


def test_sweeps_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    made = [ledger.make_sweep_dir(tmp_path).path for _ in range(3)]
    assert len(set(made)) == 3
    assert {path.parent for path in made} == {tmp_path / "sweeps"}


def test_an_output_that_is_a_file_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("", encoding="utf-8")
    with pytest.raises(DiskError, match="cannot be made"):
        ledger.make_sweep_dir(tmp_path / "outputs")


def test_a_result_is_one_line_that_maps_overrides_to_the_run_folder(tmp_path: Path) -> None:
    sweep_dir = ledger.make_sweep_dir(tmp_path)
    point = Point(2, ("recipe=demo", "optim.lr=0.1"), ("optim.lr=0.1",))
    ledger.record(sweep_dir, "sweep", overrides=["optim.lr=0.1,0.2"])
    ledger.record_result(sweep_dir, Result(point, "finished", 0.5, "loss", RunDir(Path("/o/a")), seconds=1.26))
    first, second = (json.loads(line) for line in sweep_dir.ledger.read_text(encoding="utf-8").splitlines())
    assert first["event"] == "sweep"
    assert {key: value for key, value in second.items() if key != "time"} == {
        "event": "finished",
        "point": 2,
        "overrides": ["recipe=demo", "optim.lr=0.1"],
        "varied": ["optim.lr=0.1"],
        "fingerprint": "",
        "run_folder": "/o/a",
        "objective": 0.5,
        "measure": "loss",
        "cause": "",
        "seconds": 1.3,
    }


def test_the_newest_line_of_a_point_counts_and_a_damaged_one_costs_no_other(tmp_path: Path) -> None:
    sweep_dir = ledger.make_sweep_dir(tmp_path)
    first, second = (Point(number, ("recipe=demo",), (), str(number)) for number in (1, 2))
    ledger.record_result(sweep_dir, Result(first, "failed", cause="the disk was full", run_dir=RunDir(Path("/o/a"))))
    with sweep_dir.ledger.open("a", encoding="utf-8") as file:
        file.write('{"no": "line of a ledger"}\n{"time": 1, "event": "finished", "point": 2, "over')
    ledger.record(sweep_dir, ledger.BEGUN, **ledger.facts_of(second, None))
    ledger.record_result(sweep_dir, Result(first, "finished", 0.5, "loss", RunDir(Path("/o/a")), seconds=2.0))
    assert ledger.results(sweep_dir) == [Result(first, "finished", 0.5, "loss", RunDir(Path("/o/a")), seconds=2.0), Result(second, "running")]


def test_a_sweep_without_a_point_leaves_nothing_that_was_not_there_before(tmp_path: Path) -> None:
    ledger.remove(ledger.make_sweep_dir(tmp_path / "new" / "outputs"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "outputs").mkdir()
    ledger.remove(ledger.make_sweep_dir(tmp_path / "outputs"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "outputs"]
