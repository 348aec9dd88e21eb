"""The same job started as `torchrun ... -m launcher train ...`: one run folder, one refusal, restarts that go on."""

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import command_line as line
import pytest
from cells import TINY as CELL

# How many ranks there are is torchrun's to say.
TINY = tuple(override for override in CELL if not override.startswith("cluster."))

pytestmark = pytest.mark.distributed

RUN = ("recipe=demo", *TINY, "sharding=ddp")
SITE = {f"{family}_X": f"kept for {family}" for family in ("NCCL", "NVSHMEM", "TORCH", "CUDA", "UCX", "LD")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def door(*options: str, overrides: tuple[str, ...] = RUN) -> tuple[str, ...]:
    return (*line.TORCHRUN, *options, "-m", "launcher", "train", *overrides)


def worlds(run_dir: Any) -> list[int]:
    return [json.loads(path.read_text())["world"] for path in sorted(run_dir.layouts.glob("rank-*.json"))]


def test_every_rank_of_a_torchrun_job_becomes_a_trainer_of_one_run(tmp_path: Path) -> None:
    address = f"127.0.0.1-{(port := free_port())}"
    place = tmp_path / "outputs" / ".torchrun" / address
    place.mkdir(parents=True)  # what an earlier job, killed at the same address, left behind
    (place / "ask-1").write_text("an old question")
    (place / "got-1").write_text("an old question")
    (place / "answer.json").write_text(json.dumps({"run_folder": str(tmp_path / "nowhere"), "exit_code": 3, "asked": ["an old question"]}))
    (place / "run.json").write_text(json.dumps({"run_folder": str(tmp_path), "agent": "another-host:1:1"}))
    argv = door("--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}", overrides=(*RUN, "training.max_steps=40"))
    with line.start(argv, tmp_path, **SITE, GITHUB_TOKEN="not-for-any-rank") as started:
        run_dir = started.the_run(tmp_path / "outputs")
        started.wait_until(line.reached(run_dir, 1), "first step")
        ranks = line.ranks_of(run_dir)
        ended = started.end()
    assert ended.code == 0, ended.text
    assert ended.out.count("verdict: permitted") == 1
    assert [rank.environment["RANK"] for rank in sorted(ranks, key=lambda rank: rank.environment["RANK"])] == ["0", "1"]
    for rank in ranks:
        assert rank.argv == (sys.executable, "-m", "trainers", str(run_dir.path))
        assert {name: rank.environment.get(name) for name in SITE} == SITE
        assert "GITHUB_TOKEN" not in rank.environment
    assert worlds(run_dir) == [2, 2]
    assert len(line.run_folders(tmp_path / "outputs")) == 1
    assert (run_dir.model / "adapter_model.safetensors").is_file()
    assert max(line.losses(run_dir)) == 40
    assert sorted(path.name for path in place.iterdir()) == ["run.json"]


def test_a_refused_run_is_told_once_and_leaves_no_folder(tmp_path: Path) -> None:
    too_large = ("model=qwen2.5_7b", "data=demo", "regime=full", "node=rtx4090_24", "node.gpus=2")
    ended = line.call(door("--standalone", "--nproc-per-node=2", overrides=too_large), tmp_path)
    assert ended.code != 0
    assert ended.err.count("regimen: This run does not fit its node.") == 1
    assert ended.out.count("what would fit") == 1
    assert line.run_folders(tmp_path / "outputs") == []


def test_two_agents_of_two_ranks_share_one_folder(tmp_path: Path) -> None:
    port = free_port()

    def agent(node: int) -> tuple[str, ...]:
        return door("--nnodes=2", "--nproc-per-node=2", f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}")

    with line.start(agent(1), tmp_path) as second, line.start(agent(0), tmp_path) as first:
        ends = [first.end(), second.end()]
    assert [end.code for end in ends] == [0, 0], ends[0].text + ends[1].text
    run_dir = line.the_run(tmp_path / "outputs")
    assert worlds(run_dir) == [4, 4, 4, 4]
    assert max(line.losses(run_dir)) == 3
    assert (run_dir.model / "adapter_model.safetensors").is_file()


def test_an_elastic_restart_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    overrides = (*RUN, "training.max_steps=60", "checkpoint.interval=5", "sharding=zero2")
    with line.start(door("--standalone", "--nproc-per-node=2", "--max-restarts=1", overrides=overrides), tmp_path) as started:
        run_dir = started.the_run(tmp_path / "outputs")
        started.wait_until(lambda: list(run_dir.checkpoints.glob("step-*")), "first checkpoint")
        doomed = next(rank for rank in line.ranks_of(run_dir) if rank.environment["RANK"] == "1")
        os.kill(doomed.pid, signal.SIGKILL)
        ended = started.end()
    assert ended.code == 0, ended.text
    assert len(line.run_folders(tmp_path / "outputs")) == 1
    events = [json.loads(text) for text in run_dir.journal.read_text().splitlines()]
    assert [event["event"] for event in events].count("start") == 2
    assert [entry["step"] for entry in line.entries(run_dir)].count(
        0
    ) == 1  # one evaluation before the first step: the second attempt began at a checkpoint
    assert max(line.losses(run_dir)) == 60
    assert (run_dir.model / "adapter_model.safetensors").is_file()
