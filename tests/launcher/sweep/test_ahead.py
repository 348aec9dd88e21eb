"""Points that start before their GPUs are free. The GPUs are not there: real supervisors and ranks get them by name, and compute on the CPU."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from conf.constants import HELD
from conf.run_dir import RunDir
from conf.signs import read_sign
from launcher.sweep.ahead import have_room
from launcher.sweep.pool import Limits, Pool
from launcher.sweep.schedule import Resources
from tests.launcher.sweep.test_pool import Listening, permitted
from tests.waiting import wait_until

ONE = Resources(("GPU-a",), 1)


def moments(run_dir: RunDir) -> dict[str, float]:
    return {entry["doing"]: entry["time"] for entry in map(json.loads, run_dir.doing.read_text(encoding="utf-8").splitlines())}


def runs(folder: Path) -> list[RunDir]:
    """In the order in which they began."""
    return sorted((RunDir(path.parent) for path in folder.glob("*/*/run.yaml")), key=lambda run: run.run_yaml.stat().st_mtime)


def halt_until_the_next_is_held(folder: Path) -> None:
    """The first run stands still, after it has said when it will end, however long the second one takes to load its libraries."""
    first = wait_until(lambda: [*runs(folder), None][0], "first run")
    wait_until(lambda: first.progress.exists() and "eta_seconds" in first.progress.read_text(encoding="utf-8"), "step of the first run")
    sign = read_sign(first.sign(0))
    assert sign is not None
    os.kill(sign.pid, signal.SIGSTOP)
    try:
        second = wait_until(lambda: [*runs(folder), None, None][1], "second run")
        wait_until(lambda: second.doing.exists() and HELD in moments(second), "second run that is held")
    finally:
        os.kill(sign.pid, signal.SIGCONT)


@pytest.mark.distributed
def test_the_next_point_loads_its_libraries_while_its_gpu_is_busy_and_goes_on_when_that_is_free(tmp_path: Path) -> None:
    listening = Listening()
    points = [permitted(tmp_path, number, 1) for number in (1, 2)]
    long = replace(points[0].judged.run, training=replace(points[0].judged.run.training, max_steps=100, log_interval=1))
    points[0] = replace(points[0], judged=replace(points[0].judged, run=long))
    with ThreadPoolExecutor() as beside:
        halting = beside.submit(halt_until_the_next_is_held, tmp_path)
        assert Pool(ONE, listening, Limits(ahead=1e6)).run(points) == "done"
        halting.result()
    assert [(what, number) for what, number, _ in listening.heard] == [("started", 1), ("finished", 1), ("started", 2), ("finished", 2)]
    first, second = runs(tmp_path)
    left = json.loads(first.exit_file(0).read_text(encoding="utf-8"))["time"]
    assert moments(second)[HELD] < left < moments(second)["reading data"]
    assert not second.hold.exists()


def test_points_have_room_side_by_side_where_the_host_memory_holds_the_sum_of_their_needs(tmp_path: Path) -> None:
    point = permitted(tmp_path, 1, 1)
    need = point.judged.estimate.host

    def on_a_share_of(memory: int | None) -> object:
        run = replace(point.judged.run, node=replace(point.judged.run.node, host_memory=memory))
        return replace(point, judged=replace(point.judged, run=run))

    assert have_room([on_a_share_of(2 * need)] * 2, ONE)
    assert not have_room([on_a_share_of(2 * need - 1)] * 2, ONE)
    assert have_room([on_a_share_of(need)] * 2, Resources(("GPU-a", "GPU-b"), 1))
    assert not have_room([on_a_share_of(None)], ONE)
