"""Predicted against measured: what is compared with what, and by how much it is off."""

import json
from pathlib import Path
from typing import Any

import pytest

from conf.run_dir import RunDir
from launcher.memory.estimate import estimate
from tests.described import with_facts
from trainers.measures.comparison import compare, measured_bytes, measured_phase, predicted_phases, write_memory

GIB = 2**30
PLAN: dict[str, Any] = {
    "run": {"cluster": {"ranks_per_node": 2}},
    "memory": {
        "allocated": 11 * GIB,
        "required": 12 * GIB,
        "nvml": 14 * GIB,
        "host": 8 * GIB,
        "phases": {
            "load": {"bytes": 2 * GIB, "terms": {}},
            "forward and loss": {"bytes": 9 * GIB, "terms": {}},
            "backward: loss": {"bytes": 11 * GIB, "terms": {}},
            "backward: end": {"bytes": 7 * GIB, "terms": {}},
            "evaluation": {"bytes": 5 * GIB, "terms": {}},
        },
    },
}


def on_gpu(rank: int, allocated: int, **phases: int) -> dict[str, Any]:
    return {
        "rank": rank,
        "host": 3 * GIB,
        "allocated": allocated,
        "reserved": allocated,
        "device_used": allocated + 2 * GIB,
        "nvml": None,
        "phases": phases,
    }


def written(folder: Path, *ranks: dict[str, Any], plan: dict[str, Any] | None = None) -> dict[str, Any]:
    run_dir = RunDir(folder)
    run_dir.peaks.mkdir()
    for rank in ranks:
        run_dir.peak_file(rank["rank"]).write_text(json.dumps(rank))
    if plan is not None:
        run_dir.plan.write_text(json.dumps(plan))
    write_memory(run_dir)
    return dict(json.loads(run_dir.memory.read_text()))


def test_the_fullest_rank_counts_and_the_error_is_relative_to_what_was_measured(tmp_path: Path) -> None:
    memory = written(
        tmp_path, on_gpu(0, 8 * GIB, forward=8 * GIB, backward=8 * GIB), on_gpu(1, 10 * GIB, forward=9 * GIB, backward=10 * GIB), plan=PLAN
    )
    compared = memory["compared"]
    assert compared["allocated"] == {"predicted": 11 * GIB, "measured": 10 * GIB, "error": pytest.approx(0.1)}
    assert compared["nvml"]["error"] == pytest.approx(14 / 12 - 1)
    assert compared["host"]["error"] == pytest.approx(8 / 6 - 1)  # two ranks of 3 GiB on one node
    assert {name: pair["error"] for name, pair in compared["phases"].items()} == pytest.approx({"forward": 0.0, "backward": 0.1})
    assert memory["sentence"] == (
        "peak allocated memory: predicted 11.00 GiB, measured 10.00 GiB (+10.0%); by phase: forward +0.0%, backward +10.0%."
    )


def test_a_driver_that_tells_what_each_process_holds_is_believed_before_the_whole_gpu() -> None:
    alone = {**on_gpu(0, 8 * GIB), "nvml": 9 * GIB}  # the GPU holds 10, of which 1 is another process's
    assert measured_bytes([alone], per_node=1)["nvml"] == 9 * GIB


def test_host_memory_is_that_of_the_fullest_node() -> None:
    hosts = [{"rank": rank, "host": size} for rank, size in enumerate([1, 2, 3, 5])]
    assert measured_bytes(hosts, per_node=2) == {"host": 8, "phases": {}}
    assert measured_bytes(hosts, per_node=4) == {"host": 11, "phases": {}}


def test_on_cpus_host_memory_alone_is_compared(tmp_path: Path) -> None:
    memory = written(tmp_path, {"rank": 0, "host": 3 * GIB}, {"rank": 1, "host": 5 * GIB}, plan=PLAN)
    assert memory["compared"] == {"host": {"predicted": 8 * GIB, "measured": 8 * GIB, "error": 0.0}, "phases": {}}
    assert memory["sentence"] == "peak host memory: predicted 8.00 GiB, measured 8.00 GiB (+0.0%)."


def test_a_run_without_a_plan_is_measured_all_the_same(tmp_path: Path) -> None:
    memory = written(tmp_path, on_gpu(0, 10 * GIB, forward=10 * GIB))
    assert (memory["predicted"], memory["compared"]) == ({}, {"phases": {}})
    assert memory["sentence"] == "peak allocated memory: measured 10.00 GiB."


def test_predicted_phases_that_fall_into_one_measured_phase_give_their_highest() -> None:
    assert predicted_phases(PLAN["memory"]["phases"]) == {"load": 2 * GIB, "forward": 9 * GIB, "backward": 11 * GIB, "evaluation": 5 * GIB}


def test_a_phase_that_was_not_reached_or_not_predicted_is_not_compared() -> None:
    compared = compare(
        {"allocated": 4, "nvml": 5, "host": 6, "phases": {"forward": 4, "save": 2}},
        {"allocated": 4, "nvml": 5, "host": 6, "phases": {"warm-up": 9, "forward": 4}},
    )
    assert compared["phases"] == {"forward": {"predicted": 4, "measured": 4, "error": 0.0}}


@pytest.mark.parametrize("sharding", ["ddp", "zero2", "zero3", "fsdp2"])
def test_every_phase_that_is_predicted_has_a_measured_one(sharding: str) -> None:
    run, facts = with_facts("recipe=demo", "node=a100_40", "node.gpus=2", f"sharding={sharding}", "cluster.ranks_per_node=2")
    phases = estimate(run, facts).phases
    assert {measured_phase(phase.name) for phase in phases} == {"load", "forward", "backward", "optimizer step", "evaluation", "save"}
