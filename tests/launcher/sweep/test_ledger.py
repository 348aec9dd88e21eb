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
        "run_folder": "/o/a",
        "objective": 0.5,
        "measure": "loss",
        "cause": "",
        "seconds": 1.3,
    }
