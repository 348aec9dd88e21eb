"""The page of this machine: who uses which GPU, and the queue with its buttons."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conf import signs
from conf.processes import process_start
from conf.run_dir import RunDir
from conf.signs import Sign
from launcher.board import node
from launcher.board.index import id_of
from launcher.queue import entries as queue
from tests.boards import board, environment
from tests.launcher.facts.test_node import Board as Card
from tests.launcher.facts.test_node import Driver, NotSupported


class Busy(Driver):
    """With what the page asks besides."""

    NVML_TEMPERATURE_GPU = 0

    def nvmlDeviceGetUtilizationRates(self, card: Card) -> SimpleNamespace:  # noqa: N802 - the names of NVML's C functions
        if card.mig_on:
            raise NotSupported("Not Supported")
        return SimpleNamespace(gpu=87)

    def nvmlDeviceGetTemperature(self, card: Card, _: int) -> int:  # noqa: N802
        return 61

    def nvmlDeviceGetPowerUsage(self, card: Card) -> int:  # noqa: N802
        return 512_345


def at_work(run_dir: RunDir, rank: int, pid: int, start: int) -> None:
    run_dir.signs.mkdir(parents=True, exist_ok=True)
    run_dir.sign(rank).write_bytes(signs.as_record(Sign(pid, start, signs.TRAINING, 3, 9, 9)))


def shown(monkeypatch: pytest.MonkeyPatch, run_dir: RunDir, *cards: Card, visible: str | None = None) -> list[node.GpuRow]:
    monkeypatch.setitem(sys.modules, "pynvml", Busy(cards))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus, _ = node.seen_gpus()
    by_pid = {rank.pid: rank for rank in node.ranks_of(run_dir, gpus)}
    return [node.gpu_row(gpu, node.gpu_loads().get(gpu.index, node.Load(None, None, None)), by_pid) for gpu in gpus]


def test_a_gpu_is_used_by_the_rank_whose_process_the_driver_names_and_by_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_dir, me = RunDir(tmp_path / "demo" / "now"), os.getpid()
    at_work(run_dir, 1, me, process_start(me))
    [gpu] = shown(monkeypatch, run_dir, Card(total=100 * 2**30, free=25 * 2**30, processes=((me, 5 * 2**30), (4_000_000, None))))
    assert (gpu.percent, gpu.used, gpu.total, gpu.load) == (75, "75.00 GiB", "100.00 GiB", node.Load(87, 61, 512.345))
    mine, other = gpu.users
    assert mine.rank is not None
    assert (mine.rank.run, mine.rank.name, mine.rank.number, mine.rank.gpus, mine.text) == (
        id_of(run_dir),
        "demo/now",
        1,
        (0,),
        f"process {me} holds 5120 MiB",
    )
    assert (other.rank, other.whose, other.text) == (None, "", "process 4000000")


def test_a_rank_that_has_ended_has_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its number may be that of another process by now."""
    run_dir, me = RunDir(tmp_path), os.getpid()
    at_work(run_dir, 0, me, process_start(me) + 1)
    [gpu] = shown(monkeypatch, run_dir, Card(processes=((me, None),)))
    assert [user.rank for user in gpu.users] == [None]


def test_mig_and_hidden_gpus_are_shown_as_a_run_would_see_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    part = Card(name="NVIDIA H200 MIG 1g.18gb", uuid="MIG-1", total=18 * 2**30, free=18 * 2**30)
    [row] = shown(monkeypatch, RunDir(tmp_path), Card(mig_on=True, slots=(part,)))
    assert (row.name, row.percent, row.load.busy) == ("0 · NVIDIA H200 MIG 1g.18gb", 0, None)
    cards = (Card(uuid="GPU-0"), Card(uuid="GPU-1"))
    assert [row.name for row in shown(monkeypatch, RunDir(tmp_path), *cards, visible="1")] == ["1 · NVIDIA H200"]
    assert shown(monkeypatch, RunDir(tmp_path), *cards, visible="") == []


def test_the_queue_is_shown_in_the_order_in_which_it_begins_and_changed_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    site = environment(tmp_path, XDG_STATE_HOME=str(tmp_path / "state"))
    place = queue.queue_dir(site)
    for lr in ("1e-4", "2e-4"):
        queue.add(place, ["recipe=demo", f"optim.lr={lr}"], [], 0)
    with board(tmp_path, XDG_STATE_HOME=site["XDG_STATE_HOME"]) as running:

        def post(path: str) -> dict[str, Any]:
            done: dict[str, Any] = json.loads(running.post(path).text)
            return done

        now = running.get("/node").text
        assert now.index("optim.lr=1e-4") < now.index("optim.lr=2e-4")
        assert "begins next" in now
        assert 'data-command="regimen queue first 2"' in now
        assert 'data-act="queue/serve" data-name="serve" data-command="regimen queue"' in now
        assert post("/queue/2/first")["code"] == 0
        now = running.get("/node/now").text
        assert now.index("optim.lr=2e-4") < now.index("optim.lr=1e-4")
        assert post("/queue/1/remove")["command"] == "regimen queue remove 1"
        assert post("/queue/1/remove")["code"] == 2
        for path in ("/queue/1/delete", "/queue/-1/remove", "/queue/%C2%B2/remove", "/queue/9999999999/remove", "/queue/serve/remove"):
            assert running.post(path).status == 404
        assert "There is no NVIDIA driver here" in now or "GPU" in now
    kept = {entry.number: entry for entry in queue.entries(place)}
    assert {number: entry.state for number, entry in kept.items()} == {1: "removed", 2: "waiting"}
    events = [json.loads(line) for line in place.journal.read_text().splitlines()]
    assert [(event["event"], event.get("via")) for event in events] == [("added", None), ("added", None), ("first", "board"), ("removed", "board")]
