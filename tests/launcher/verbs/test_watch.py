"""What `regimen status RUN` says beyond its one line, and what `regimen stop` leaves in the journal."""

from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir, load_run, save_run
from launcher.cli import main
from launcher.composition.recorded import changes
from launcher.launch import lock
from launcher.verbs.watch import EVENTS
from tests.described import described


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "outputs" / "demo" / "one")
    made.path.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu"), made)
    return made


def test_a_named_run_tells_what_happened_to_it(run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    journal.record(run_dir, journal.Started("n1"))
    journal.record(run_dir, journal.Committed(20, 3 * 2**20, 0.25))
    journal.record(run_dir, journal.PassedOver("step-20", "model.safetensors is missing"))
    journal.record(run_dir, journal.Ended(80, "Out of memory."))
    assert main(["status", str(run_dir.path)]) == 0
    told = [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()[2:]]
    assert told == [
        "started by the user on n1",
        "committed step-20 (3.0 MiB, hashed and synced in 0.2 s)",
        "step-20 was not used: model.safetensors is missing",
        "ended with exit code 80: Out of memory.",
    ]
    assert main(["status", "--output", str(run_dir.path.parents[1])]) == 0
    assert "committed" not in capsys.readouterr().out


def test_of_a_long_history_the_newest_events_are_shown(run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    for step in range(EVENTS + 7):
        journal.record(run_dir, journal.Committed(step, 1, 0.1))
    assert main(["status", str(run_dir.path)]) == 0
    told = capsys.readouterr().out.splitlines()[2:]
    assert told[0] == f"7 earlier events in {run_dir.journal}"
    assert len(told) == EVENTS + 1
    assert f"committed step-{EVENTS + 6} " in told[-1]


def test_a_stop_from_the_command_line_is_in_the_journal(run_dir: RunDir) -> None:
    lock.acquire(run_dir, lock.this_process())
    assert main(["stop", str(run_dir.path)]) == 0
    assert [journal.row_of(event) for event in journal.events(run_dir)] == [journal.StopRequested("regimen stop")]


def test_the_keys_that_an_attempt_changes_are_named_with_both_values(run_dir: RunDir) -> None:
    run = described("model=demo", "data=demo", "node=cpu", "checkpoint.interval=7", "backend.port=5")
    assert changes(run_dir, run) == [journal.Changed("checkpoint.interval", "200", "7"), journal.Changed("backend.port", "0", "5")]
    assert changes(run_dir, load_run(run_dir)) == []
