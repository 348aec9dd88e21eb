"""The node of a Slurm job by the nodes of its partition: sinfo's lines as Slurm 22.05.8 writes them, through stand-ins on the PATH."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conf.schema import Node, Slurm
from launcher.errors import ConfigError
from launcher.facts.node import NodeFacts
from launcher.facts.partition import feature_test, seconds_of, settle_in_partition
from tests.described import composed

GIB = 1024**3
H200 = 150754820096  # bytes, conf/node/h200_141.yaml
H100 = 85520809984
V100 = 34359738368
PARTITION = (
    "gpu|gpu*|n1|64|512000|gpu:h100:8(S:0-1)|nvlink,ib|2-00:00:00",
    "gpu|gpu*|n2|64|256000|gpu:h200:8|nvlink|2-00:00:00",
    "gpu|gpu*|n3|32|128000|gpu:tesla_v100-sxm2-32gb:4,gpu:t4:1|old|2-00:00:00",
    "gpu|gpu*|n4|48|64000|(null)|(null)|2-00:00:00",
)
Settle = Callable[..., NodeFacts]


@pytest.fixture
def settle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settle:
    """node=auto of a job, where sinfo lists these nodes."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name: str, script: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    def settle(*lines: str, memory: int | None = None, node: tuple[str, ...] = (), **cluster: Any) -> NodeFacts:
        listed = "".join(f"echo '{line}'\n" for line in lines or PARTITION)
        put("sinfo", f'echo "$*" >>"{tmp_path}/asked"\n{listed}')
        put(
            "scontrol",
            'case "$*" in *hostnames*) echo n1; echo n3;; *course*) echo "ReservationName=course Nodes=n[1,3] NodeCnt=2";; *) exit 1;; esac',
        )
        run = composed("model=demo", "data=demo", "cluster=slurm", "node=auto", *node)
        assert isinstance(run.cluster, Slurm)
        return settle_in_partition(run.node, replace(run.cluster, **cluster), os.environ, memory)

    return settle


def seen(facts: NodeFacts) -> tuple[Any, ...]:
    node = facts.node
    return node.gpus, node.gpu_name, node.gpu_memory, node.host_memory, node.tflops


def test_one_kind_of_node_is_taken_as_sinfo_lists_it(settle: Settle) -> None:
    facts = settle(PARTITION[0])
    assert seen(facts) == (8, "H100-80GB", H100, 512000 * 1024**2, 989)
    assert (facts.host_memory_source, facts.here, facts.notes) == ("sinfo", False, ())


def test_unequal_nodes_are_judged_by_the_smallest_in_each_respect(settle: Settle) -> None:
    """The T4 of n3 has the least memory, and the V100 is as old; n4 has no GPU, so that a job with GPUs never lands on it."""
    facts = settle()
    assert seen(facts) == (1, "T4", facts.node.gpu_memory, 128000 * 1024**2, 65)
    assert facts.node.gpu_memory is not None
    assert facts.node.gpu_memory < V100
    [note] = facts.notes
    assert "1 node of 8 x h100 with 512000 MiB" in note
    assert "1 node of 1 x t4 with 128000 MiB" in note


def test_an_older_card_with_more_memory_gives_its_name(settle: Settle) -> None:
    """A run in bfloat16 must not be permitted where it can land on a V100, whatever else has less memory."""
    old, small = "p|p*|n1|32|128000|gpu:v100_32:4|(null)|infinite", "p|p*|n2|32|128000|gpu:rtx_4090:4|(null)|infinite"
    facts = settle(old, small)
    assert facts.node.gpu_name == "V100-32GB"
    assert facts.node.gpu_memory is not None
    assert facts.node.gpu_memory < V100


@pytest.mark.parametrize(
    ("cluster", "name", "gpus", "host"),
    [
        ({"gpu_type": "h200"}, "H200-141GB", 8, 256000),
        ({"constraint": "nvlink&ib"}, "H100-80GB", 8, 512000),
        ({"constraint": "ib|nvlink", "ranks_per_node": 4}, "H100-80GB", 8, 256000),
        ({"exclude": "n[1,3]"}, "H200-141GB", 8, 256000),
        ({"ranks_per_node": 4, "reservation": "course"}, "V100-32GB", 4, 128000),
        ({"ranks_per_node": 8}, "H100-80GB", 8, 256000),
        ({"ranks_per_node": 4, "cpus_per_rank": 12}, "H100-80GB", 8, 256000),
    ],
)
def test_what_the_job_asks_for_decides_where_it_can_land(cluster: dict[str, Any], name: str, gpus: int, host: int, settle: Settle) -> None:
    facts = settle(**cluster)
    assert (facts.node.gpu_name, facts.node.gpus, facts.node.host_memory) == (name, gpus, host * 1024**2)


def test_stated_host_memory_leaves_out_nodes_that_have_less(settle: Settle) -> None:
    assert settle(ranks_per_node=8, memory=300 * GIB).node.gpu_name == "H100-80GB"


def test_a_constraint_of_another_form_leaves_all_nodes_in_and_says_so(settle: Settle) -> None:
    facts = settle(constraint="[nvlink*1&ib*1]", ranks_per_node=8)
    assert facts.notes[0].startswith("cluster.constraint=[nvlink*1&ib*1] was not evaluated")


def test_a_job_without_gpus_can_land_on_every_node(settle: Settle) -> None:
    assert seen(settle(node=("node.gpus=0",))) == (0, None, None, 64000 * 1024**2, None)


def test_the_partition_is_asked_for_by_name(settle: Settle, tmp_path: Path) -> None:
    settle(partition="gpu")
    assert "--partition=gpu" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("lines", "cluster", "said"),
    [
        (("p|p*|n1|8|64000|gpu:a100:4|(null)|infinite",), {}, r"cluster\.gpu_types=\[a100:a100_40\] or cluster\.gpu_types=\[a100:a100_80\]"),
        (("p|p*|n1|8|64000|gpu:mi300x:4|(null)|infinite",), {}, r"GPU type mi300x of node n1 .*cluster\.gpu_types=\[mi300x:NAME:80GB:312\]"),
        (("p|p*|n1|8|64000|gpu:4|(null)|infinite",), {}, "have no type in Slurm, and its features name no card"),
        (("p|p|n1|8|64000|gpu:h100:4|(null)|infinite",), {}, r"Slurm has no default partition\. Set it to one of: p\."),
        (("",), {"partition": "nope"}, r"cluster\.partition=nope has no nodes"),
        ((), {"nodes": 5}, r"4 nodes of gpu have|3 nodes of gpu have"),
        ((), {"gpu_type": "h300"}, "0 nodes of gpu have what the job asks for, and cluster.nodes=1"),
        ((), {"time": "3-00:00:00"}, "time limit 2-00:00:00"),
        ((), {"reservation": "other"}, "cluster.reservation=other is not known to Slurm"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_what_to_do(lines: tuple[str, ...], cluster: dict[str, Any], said: str, settle: Settle) -> None:
    with pytest.raises(ConfigError, match=said):
        settle(*lines, **cluster)


def test_the_site_says_which_card_a_type_is(settle: Settle) -> None:
    line = "p|p*|n1|8|64000|gpu:a100:4|(null)|infinite"
    assert settle(line, gpu_types=["a100:a100_80"]).node.gpu_name == "A100-80GB"
    assert seen(settle(line, gpu_types=["a100:A100X:64GiB:300"])) == (4, "A100X", 64 * GIB, 64000 * 1024**2, 300)


def test_gpus_without_a_type_are_known_by_a_feature_of_their_node(settle: Settle) -> None:
    assert settle("p|p*|n1|8|64000|gpu:4|ib,h200|infinite").node.gpu_memory == H200


def test_without_slurm_the_user_is_told_which_node_to_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    run = composed("model=demo", "data=demo", "cluster=slurm", "node=auto")
    assert isinstance(run.cluster, Slurm)
    assert isinstance(run.node, Node)
    with pytest.raises(ConfigError, match=r"sinfo is not on the PATH.*Set node= to one of a100_40, a100_80, h100_80"):
        settle_in_partition(run.node, run.cluster, os.environ, None)


@pytest.mark.parametrize(
    ("limit", "seconds"), [("infinite", float("inf")), ("1-12:00:00", 129600), ("12:00:00", 43200), ("30:00", 1800), ("n/a", float("inf"))]
)
def test_time_limits_are_read(limit: str, seconds: float) -> None:
    assert seconds_of(limit) == seconds


@pytest.mark.parametrize(("constraint", "met"), [(None, True), ("a", True), ("a&b", True), ("a&c", False), ("c|b", True), ("[c|d]", False)])
def test_features_of_simple_constraints(constraint: str | None, met: bool) -> None:
    test = feature_test(constraint)
    assert test is not None
    assert test(frozenset({"a", "b"})) is met
