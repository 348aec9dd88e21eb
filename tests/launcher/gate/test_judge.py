"""A run is judged by what its own node has, and not by the machine that plans it."""

import shutil
from collections import namedtuple

import pytest

from launcher.composition.compose import compose
from launcher.gate.judge import Judged, judge_run
from launcher.verbs.plan import recommendations
from launcher.words import gib

LLAMA = ("model=llama3.1_8b", "data=files", "data.sets=[org/name]", "regime=full", "training.max_steps=10")
ELSEWHERE = ("node=a100_80", "node.gpus=2")
Usage = namedtuple("Usage", "total used free")


def judged(*overrides: str) -> Judged:
    return judge_run(compose(overrides))


@pytest.fixture(autouse=True)
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has one byte left, and no GPU."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2, 1, 1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def rules(found: Judged) -> set[str]:
    return {check.rule for check in found.verdict.checks}


def test_the_disk_of_another_node_is_a_note() -> None:
    found = judged(*LLAMA, *ELSEWHERE)
    assert "DISK" not in rules(found)
    assert (
        f"node=a100_80 is not this machine, so its disk is not judged. The run needs {gib(found.estimate.disk)} in output=outputs there."
    ) in found.node.notes
    # README shows what fits: full training under ZeRO needs more disk than is here, and is proposed
    assert sum("sharding=zero" in line for line in recommendations(found, LLAMA)) >= 2


def test_the_disk_of_this_machine_and_of_a_slurm_job_counts() -> None:
    for place in (("node=cpu", "gate.mode=advise"), (*ELSEWHERE, "cluster=slurm")):
        found = judged(*LLAMA, *place)
        (disk,) = (check for check in found.verdict.checks if check.rule == "DISK")
        assert (disk.have, disk.passed) == (1, False)


def test_a_slurm_job_has_the_memory_that_it_states() -> None:
    queued = ("model=demo", "data=demo", "node=cpu", "cluster=slurm")
    unknown = judged(*queued)
    assert rules(unknown) == {"DISK"}  # neither the published table nor the prediction can be compared with anything
    assert "node=cpu does not state its host memory" in unknown.node.notes[0]
    for stated in (("cluster.memory=1GiB",), ("cluster.memory=1GiB", "node.host_memory=64GiB"), ("cluster.memory=64GB", "node.host_memory=1GiB")):
        (host,) = (check for check in judged(*queued, *stated).verdict.checks if check.rule == "HOST_RAM")
        assert host.have == 2**30


def test_a_dequantised_base_is_said_in_one_line() -> None:
    notes = judged("model=demo", "data=demo", "regime=qlora", "regime.dequantised=true", *ELSEWHERE).notes
    assert [note for note in notes if "dequantised" in note] == [
        "regime.dequantised=true: the base has the values of its 4 bits, and takes the memory of 16-bit weights, as in regime=lora."
    ]
