"""Events are appended, never rewritten, and outlive a writer that died in the middle of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf import journal
from conf.journal import Changed, Committed, Ended, Failed, Started, Submitted, events, record, starts_without_progress
from conf.run_dir import RunDir
from tests.waiting import PATIENCE

# Records events of its own as fast as it can.
WRITER = """
import sys
from pathlib import Path
from conf.journal import Committed, record
from conf.run_dir import RunDir

for step in range(25):
    record(RunDir(Path(sys.argv[1])), Committed(step, int(sys.argv[2]), 0.5))
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def test_events_come_back_in_order_with_their_facts(run_dir: RunDir) -> None:
    record(run_dir, Started("here", argv=("a", "b")))
    record(run_dir, Ended(0, "zweizeilig\nü"))
    found = [{key: value for key, value in event.items() if key != "time"} for event in events(run_dir)]
    assert found == [
        {"event": "start", "host": "here", "by": "the user", "argv": ["a", "b"]},
        {"event": "end", "exit_code": 0, "message": "zweizeilig\nü"},
    ]
    assert events(run_dir)[0]["time"] <= events(run_dir)[1]["time"]
    assert [journal.row_of(event) for event in events(run_dir)] == [Started("here", argv=("a", "b")), Ended(0, "zweizeilig\nü")]


def test_a_run_without_a_journal_has_no_events(run_dir: RunDir) -> None:
    assert events(run_dir) == []


def test_a_torn_last_line_is_left_for_later(run_dir: RunDir) -> None:
    record(run_dir, Started())
    with run_dir.journal.open("a") as file:
        file.write('{"time": 3, "eve')
    assert [event["event"] for event in events(run_dir)] == ["start"]


def test_an_event_after_a_torn_line_is_not_lost_in_it(run_dir: RunDir) -> None:
    record(run_dir, Started())
    with run_dir.journal.open("a") as file:
        file.write('{"time": 3, "eve')
    record(run_dir, Ended(0, ""))
    assert [event["event"] for event in events(run_dir)] == ["start", "end"]


def test_two_processes_at_once_lose_no_event_of_each_other(run_dir: RunDir) -> None:
    """Launcher and first rank write the same file."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(run_dir.path), str(size)], env={**os.environ}) for size in (1, 2)]
    assert [writer.wait(timeout=PATIENCE) for writer in writers] == [0, 0]
    assert [sorted(event["step"] for event in events(run_dir) if event["size"] == size) for size in (1, 2)] == [[*range(25)], [*range(25)]]


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "start"}',
        '{"time": 1, "event": "end", "exit_code": "0", "message": ""}',
        '{"time": 1, "event": "commit", "step": 1, "size": 2}',
        '{"time": 1, "event": "prune", "checkpoints": "step-5"}',
        '{"time": 1, "event": "start", "by": 7}',
        '{"time": 1, "event": "rewound", "checkpoint": "step-5", "set_aside": [5]}',
    ],
)
def test_a_line_without_what_its_row_needs_is_left_out(line: str, run_dir: RunDir) -> None:
    record(run_dir, Started())
    with run_dir.journal.open("a") as file:
        file.write(line + "\n")
    assert len(events(run_dir)) == 1


def test_an_event_of_a_newer_version_stays_readable(run_dir: RunDir) -> None:
    run_dir.journal.write_text(json.dumps({"time": 5, "event": "moved", "to": 4}) + "\n")
    assert journal.lines(events(run_dir))[0].endswith("  moved (an event of a newer version)")


def test_every_row_has_words_and_comes_back_as_it_was(run_dir: RunDir) -> None:
    examples = {int: 3, int | None: 3, float: 0.5, str: "text", tuple[str, ...]: ("a", "b"), str | None: "text", tuple[str, ...] | None: ("a",)}
    rows = [row(**{name: examples[kind] for name, kind, _ in journal.shape(event)}) for event, row in journal.ROWS.items()]
    for row in rows:
        record(run_dir, row)
    assert [journal.row_of(event) for event in events(run_dir)] == rows
    assert all(len(line.partition("  ")[2]) > 5 for line in journal.lines(events(run_dir)))


def test_the_words_of_a_row_have_its_fields() -> None:
    assert journal.Changed("optim.lr", "0.1", "{lr}").words() == "optim.lr changed from 0.1 to {lr}"
    assert journal.Pruned(("step-1", "step-2")).words() == "removed step-1, step-2 (checkpoint.keep)"
    assert journal.Ended(75, "stopped and saved").words() == "ended with exit code 75: stopped and saved"


def test_only_a_commit_sets_the_counter_back(run_dir: RunDir) -> None:
    counts = []
    for row in (
        Submitted("12"),
        Started(),
        Failed(6, "killed"),
        Started(by=journal.SUPERVISOR),
        Started(by=journal.SLURM),
        Started(by=journal.USER),
        Changed("backend.port", "0", "5"),
        Committed(5, 1, 0.1),
        Started(by=journal.TORCHRUN),
    ):
        record(run_dir, row)
        counts.append(starts_without_progress(events(run_dir)))
    assert counts == [0, 0, 0, 1, 2, 2, 2, 0, 1]


def test_roll_backs_are_counted_from_the_checkpoint_on_that_a_start_goes_on_from() -> None:
    """The rate of a checkpoint holds those before it."""
    back, crash = journal.Failed(81, "The loss is NaN."), journal.Failed(6, "killed")

    def counted(step: int | None, *rows: journal.Row) -> int:
        entries = [{"time": 1.0, "event": row.event, **{name: value for name, value in vars(row).items() if value is not None}} for row in rows]
        return journal.roll_backs(entries, step)

    history = (back, journal.Committed(2, 1, 0.1), back, crash, journal.Committed(4, 1, 0.1), back, back)
    assert [counted(step, *history) for step in (0, 2, 4, None)] == [4, 3, 2, 2]
    assert counted(2, *history, journal.Rewound("step-2", ("step-4",))) == 0
