"""Events are appended, never rewritten, and outlive a writer that died in the middle of one."""

from pathlib import Path

import pytest

from conf.run_dir import RunDir
from launcher.launch.journal import events, record


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def test_events_come_back_in_order_with_their_facts(run_dir: RunDir) -> None:
    record(run_dir, "start", argv=["a", "b"])
    record(run_dir, "end", exit_code=0, message="zweizeilig\nü")
    found = [{key: value for key, value in event.items() if key != "time"} for event in events(run_dir)]
    assert found == [{"event": "start", "argv": ["a", "b"]}, {"event": "end", "exit_code": 0, "message": "zweizeilig\nü"}]
    assert events(run_dir)[0]["time"] <= events(run_dir)[1]["time"]


def test_a_run_without_a_journal_has_no_events(run_dir: RunDir) -> None:
    assert events(run_dir) == []


def test_a_torn_last_line_is_left_for_later(run_dir: RunDir) -> None:
    record(run_dir, "start")
    with run_dir.journal.open("a") as file:
        file.write('{"time": 3, "eve')
    assert [event["event"] for event in events(run_dir)] == ["start"]


def test_an_event_after_a_torn_line_is_not_lost_in_it(run_dir: RunDir) -> None:
    record(run_dir, "start")
    with run_dir.journal.open("a") as file:
        file.write('{"time": 3, "eve')
    record(run_dir, "end", exit_code=0, message="")
    assert [event["event"] for event in events(run_dir)] == ["start", "end"]
