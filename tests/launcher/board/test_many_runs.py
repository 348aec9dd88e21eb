"""A board over a thousand run folders, one of which has logged a hundred thousand steps. It prints what it took; -s shows it."""

import json
import time
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir, save_run
from launcher.board.index import id_of
from launcher.board.views import PER_PAGE
from tests.boards import Running, board
from tests.described import described

RUNS, STEPS, PEAK = 1_000, 100_000, 54_321


def write_runs(folder: Path) -> RunDir:
    """The newest of them, which has many steps and one peak."""
    run = described("model=demo", "data=demo", "node=cpu")
    for number in range(RUNS):
        run_dir = RunDir(folder / "outputs" / f"run-{number}" / "2026-11-22_10-00-00")
        run_dir.path.mkdir(parents=True)
        save_run(run, run_dir)
        journal.record(run_dir, journal.Started("here"))
        steps = STEPS if number == RUNS - 1 else 20
        lines = (
            json.dumps({"step": step, "of": steps, "loss": 99.0 if step == PEAK else 1.0 + 1.0 / step, "lr": 1e-4}) for step in range(1, steps + 1)
        )
        run_dir.progress.write_text("\n".join(lines) + "\n")
        journal.record(run_dir, journal.Ended(6 if number % 10 == 0 else 0, "it broke"))
    return run_dir


def timed(running: Running, path: str) -> str:
    begun, before = time.monotonic(), cpu_seconds(running)
    answer = running.get(path)
    assert answer.status == 200
    took, of_cpu = time.monotonic() - begun, cpu_seconds(running) - before
    print(f"{path.partition('?')[0]:<40} {took:6.2f} s, {of_cpu:6.2f} s of the CPU, {len(answer.text):,} bytes")
    return answer.text


def cpu_seconds(running: Running) -> float:
    fields = Path(f"/proc/{running.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.long
def test_a_thousand_runs_and_a_hundred_thousand_steps_are_shown(tmp_path: Path) -> None:
    newest = write_runs(tmp_path)
    begun = time.monotonic()
    with board(tmp_path) as running:
        print(f"address after {time.monotonic() - begun:.2f} s")
        timed(running, "/")
        for _ in range(2):
            home = timed(running, "/runs")
        assert home.count('class="compared"') == PER_PAGE
        assert f"of {RUNS}" in " ".join(home.split())
        failed = timed(running, "/runs/list?words=failed")
        assert failed.count("state failed") == PER_PAGE
        for page in ("/node", "/node"):
            timed(running, page)
        for _ in range(2):
            [loss, _] = json.loads(timed(running, f"/runs/{id_of(newest)}/curve"))["charts"]
        values = dict(zip(loss["training"]["steps"], loss["training"]["values"], strict=True))
        assert (values[PEAK], values[1], values[STEPS]) == (99.0, 2.0, 1.0 + 1.0 / STEPS)
        memory = next(line for line in Path(f"/proc/{running.process.pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
        print(memory)
