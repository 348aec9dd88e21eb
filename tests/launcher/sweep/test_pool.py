"""Placement on GPUs that are not there: real supervisors get them by name, the runs themselves compute on the CPU."""

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from launcher.sweep.points import Permitted, Point, Result, judge_point
from launcher.sweep.pool import Limits, Pool, threads_of
from launcher.sweep.processes import Running
from launcher.sweep.schedule import Resources, Shared

TWO = Resources(("GPU-a", "GPU-b"), 1)
ONE_STEP = ["cluster.ranks_per_node=1", "sharding=ddp", "training.max_steps=1", "evaluation.interval=0", "evaluation.answers=0"]
FEW = ["training.micro_batch=4", "data.max_samples=64"]


def permitted(output: Path, number: int, gpus: int) -> Permitted:
    overrides = ("recipe=demo", "node=cpu", f"output={output}", *ONE_STEP, *FEW)
    point = judge_point(Point(number, overrides, ()), [], TWO)
    assert isinstance(point, Permitted)
    return replace(point, gpus=gpus)


def visible_devices(running: Running) -> str:
    entries = Path(f"/proc/{running.process.pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)["CUDA_VISIBLE_DEVICES"]


class Listening:
    """Keeps what a pool tells: (what, the number of the point, its GPUs or its cause)."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, str]] = []
        self.asked = False
        self.shown: list[tuple[int, int]] = []

    def started(self, running: Running) -> None:
        self.heard.append(("started", running.point.number, visible_devices(running)))

    def ended(self, result: Result) -> None:
        self.heard.append((result.state, result.point.number, result.cause))

    def say(self, text: str) -> None:
        print(text)

    def update(self, running: Sequence[Running], waiting: int) -> None:
        self.shown.append((len(running), waiting))

    def stop_asked(self) -> bool:
        return self.asked


@pytest.mark.distributed
def test_the_wide_point_gets_both_gpus_and_then_two_narrow_ones_get_one_each(tmp_path: Path) -> None:
    listening = Listening()
    assert Pool(TWO, listening).run([permitted(tmp_path, number, gpus) for number, gpus in ((1, 1), (2, 2), (3, 1))]) == "done"
    heard = listening.heard
    assert heard[:4] == [("started", 2, "GPU-a,GPU-b"), ("finished", 2, ""), ("started", 1, "GPU-a"), ("started", 3, "GPU-b")]
    assert {(1, 2), (2, 0)} <= set(listening.shown)
    assert sorted(heard[4:]) == [("finished", 1, ""), ("finished", 3, "")]


def test_a_point_whose_folder_cannot_be_made_is_a_failed_row(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    point = permitted(tmp_path, 1, 0)
    unwritable = replace(point, judged=replace(point.judged, run=replace(point.judged.run, output=str(tmp_path / "file"))))
    heard = Listening()
    assert Pool(Resources((), 1), heard).run([unwritable]) == "done"
    ((state, _, cause),) = heard.heard
    assert state == "failed"
    assert "cannot be made" in cause


def test_after_the_last_failure_that_is_allowed_no_other_point_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    first = permitted(tmp_path, 1, 0)
    unwritable = replace(first, judged=replace(first.judged, run=replace(first.judged.run, output=str(tmp_path / "file"))))
    numbered = [replace(unwritable, point=replace(unwritable.point, number=number)) for number in (1, 2, 3, 4)]
    heard = Listening()
    assert Pool(Resources((), 1), heard, Limits(failures=3), failed=1).run(numbered) == "too many failures"
    assert [(state, number) for state, number, _ in heard.heard] == [("failed", 1), ("failed", 2), ("not started", 3), ("not started", 4)]


def test_a_request_through_the_folder_of_the_sweep_starts_no_point(tmp_path: Path) -> None:
    heard = Listening()
    heard.asked = True
    assert Pool(Resources((), 1), heard).run([permitted(tmp_path, 1, 0)]) == "asked to stop"
    assert [(state, number) for state, number, _ in heard.heard] == [("not started", 1)]


def test_the_cores_are_shared_by_as_many_ranks_as_there_are_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert threads_of(permitted(tmp_path, 1, 1), TWO) == 32
    assert threads_of(permitted(tmp_path, 1, 0), Resources((), 4)) == 16


def test_what_a_point_reserves_of_a_gpu_that_it_shares_is_left_out_of_what_is_free(tmp_path: Path) -> None:
    pool = Pool(replace(TWO, places=3, bytes=100), Listening())
    shares = {1: 30, 2: 20, 3: 0}
    for number, needed in shares.items():
        point = permitted(tmp_path, number, 1)
        pool.begun[number] = replace(point, shares=needed)
        gpu = "GPU-b" if number == 3 else "GPU-a"
        with (tmp_path / f"log-{number}").open("w+b") as log, subprocess.Popen(("true",)) as process:
            pool.running.append(Running(point.point, RunDir(tmp_path), (gpu,), process, log, 0.0))
    assert pool.free() == Resources((), 1, 3, 100, (Shared("GPU-a", 1, 50),))
