"""What `regimen status` and `regimen stop` say of a sweep."""

import json
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir, save_run
from launcher.cli import main
from launcher.launch import lock
from launcher.sweep import ledger
from launcher.sweep.ledger import Start, SweepDir
from launcher.sweep.points import Point, Result
from tests.described import described


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepDir:
    """One point finished, one refused, and one whose run has made two of its steps."""
    monkeypatch.chdir(tmp_path)
    sweep_dir = ledger.make_sweep_dir(Path("outputs"))
    ledger.record_sweep(sweep_dir, Start(("recipe=demo", "optim.lr=1,2,3"), (), str(tmp_path)))
    run_dir = RunDir(tmp_path / "outputs" / "demo" / "one")
    run_dir.path.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu"), run_dir)
    run_dir.progress.write_text(json.dumps({"step": 2, "of": 9, "loss": 1.5}) + "\n", encoding="utf-8")
    journal.record(run_dir, journal.Started("n1"))
    points = [Point(number, ("recipe=demo", f"optim.lr={number}"), (f"optim.lr={number}",), str(number)) for number in (1, 2, 3)]
    ledger.record_result(sweep_dir, Result(points[0], "finished", 0.5, "loss"))
    ledger.record_result(sweep_dir, Result(points[1], "refused", cause="HOST_RAM: too little"))
    began = {**ledger.facts_of(points[2], run_dir), "gpus": ["0"]}
    ledger.record(sweep_dir, ledger.BEGUN, **began)
    return sweep_dir


def test_a_sweep_that_nobody_works_on_says_how_it_goes_on(sweep: SweepDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(sweep.path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{sweep.path}  unfinished\n")
    assert "its process is gone" in said
    assert said.endswith(f"go on with: regimen train -m resume={sweep.path}\n")


def test_a_running_sweep_shows_where_its_points_are_and_is_in_the_list(sweep: SweepDir, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir,) = (result.run_dir for result in ledger.results(sweep) if result.run_dir)
    owners = [(folder, lock.this_process()) for folder in (sweep.lockable, run_dir)]
    for folder, held in owners:
        lock.acquire(folder, held)
    assert main(["status", str(sweep.path)]) == 0
    assert "step 2/9 · loss 1.5" in capsys.readouterr().out
    assert main(["status"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "outputs/sweeps/" in line]
    assert "running" in line
    assert line.endswith("3 points: 1 finished, 1 refused, 1 running")
    assert main(["status", str(sweep.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], [point["state"] for point in told["points"]]) == ("running", ["finished", "refused", "running"])
    assert main(["stop", str(sweep.path)]) == 0
    assert sweep.stop.exists()
    assert f"regimen train -m resume={sweep.path}" in capsys.readouterr().out
    for folder, held in owners:
        lock.release(folder, held)


def test_a_sweep_that_does_not_run_is_not_asked_to_stop(sweep: SweepDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", str(sweep.path)]) == 0
    assert "is not running" in capsys.readouterr().out
    assert not sweep.stop.exists()


def test_a_sweep_that_has_ended_is_followed_to_its_table_and_exit_code(sweep: SweepDir, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir,) = (result.run_dir for result in ledger.results(sweep) if result.run_dir)
    journal.record(run_dir, journal.Ended(0, "finished"))
    assert main(["status", "--follow", str(sweep.path)]) == 6
    said = capsys.readouterr().out
    assert "point 3 starts on GPU 0: optim.lr=3" in said
    assert "3 points: 2 finished, 1 refused" in said
    assert f"{sweep.path}  ended" in said


def test_a_sweep_is_found_by_the_time_of_its_start_unless_a_run_has_that_name(sweep: SweepDir, capsys: pytest.CaptureFixture[str]) -> None:
    time = sweep.path.name
    assert main(["status", time]) == 0
    assert capsys.readouterr().out.startswith(f"{sweep.path}  unfinished\n")
    assert main(["stop", time]) == 0
    assert "is not running" in capsys.readouterr().out
    twin = RunDir(sweep.path.parents[1] / "demo" / time)
    twin.path.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu"), twin)
    assert main(["status", time]) == 2
    assert f"{time} is the time of a sweep, {sweep.path}, and of a run, " in capsys.readouterr().err


def test_the_list_for_programs_has_sweeps_after_the_runs(sweep: SweepDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json"]) == 0
    run, listed = json.loads(capsys.readouterr().out)
    assert "run_folder" in run
    assert (listed["sweep_folder"], listed["state"], len(listed["points"])) == (str(sweep.path), "unfinished", 3)
