from dataclasses import replace

import pytest

from conf.schema import Run
from launcher.facts.model import ModelFacts
from launcher.gate.verdict import Verdict, judge
from launcher.memory.estimate import estimate
from launcher.memory.terms import MemoryEstimate
from tests.described import with_facts

GB = 10**9
PARAMETERS = 8_030_261_248  # Llama-3.1-8B
# Full AMP between the published 7B (6,738,415,616 parameters, 120 GB) and 13B (13,015,864,320 parameters, 240 GB).
PUBLISHED = (120 + 120 * (PARAMETERS - 6_738_415_616) / (13_015_864_320 - 6_738_415_616)) * GB


def estimated(*overrides: str) -> tuple[Run, ModelFacts, MemoryEstimate]:
    run, facts = with_facts("model=llama3.1_8b", "data=demo", *overrides)
    return run, facts, estimate(run, facts)


def check(verdict: Verdict, rule: str):
    return next(each for each in verdict.checks if each.rule == rule)


def test_gate_refuses_full_8b_on_24_gib_and_names_the_largest_term():
    verdict = judge(*estimated("regime=full", "node=rtx4090_24"))

    assert not verdict.permitted
    floor, peak = check(verdict, "PUBLISHED_FLOOR"), check(verdict, "GPU_PEAK")
    assert floor.need == pytest.approx(PUBLISHED, rel=1e-6)
    assert floor.have == 25_757_220_864
    assert peak.need > peak.have == 25_757_220_864
    assert verdict.term == "optimizer states"
    assert "optimizer states, 59.83 GiB" in peak.sentence


def test_need_is_the_required_bytes_and_the_margin():
    run, facts, predicted = estimated("node=h100_80", "gate.margin=0.1")

    assert check(judge(run, facts, predicted), "GPU_PEAK").need == int(predicted.required * 1.1)


def test_floor_counts_the_gpus_of_all_nodes_that_the_job_uses():
    verdict = judge(*estimated("regime=full", "node=h100_80", "node.gpus=8", "cluster.ranks_per_node=4", "cluster.nodes=2", "sharding=zero3"))

    assert check(verdict, "PUBLISHED_FLOOR").have == 2 * 4 * 85_520_809_984
    assert verdict.permitted


def test_an_advisory_floor_warns_and_does_not_refuse():
    # 16 GB are published for adapters on 7B, 19.3 for 8B; a prediction of some 17 GiB fits 19 GB.
    overrides = ("regime=lora", "node=t4_16", "data.cutoff=64", "gate.margin=0", "training.loss=fused", "node.gpu_memory=19000000000")
    strict = judge(*estimated(*overrides))
    advisory = judge(*estimated(*overrides, "gate.floor=advisory"))

    assert [each.rule for each in strict.checks if not each.passed] == ["PUBLISHED_FLOOR"]
    assert not strict.permitted
    assert advisory.permitted
    assert not check(advisory, "PUBLISHED_FLOOR").passed


def test_memory_that_others_use_on_a_gpu_counts():
    run, facts, predicted = estimated("node=h100_80", "node.gpus=2")

    assert judge(run, facts, predicted, (80 * GB, 80 * GB)).permitted
    crowded = judge(run, facts, predicted, (80 * GB, 5 * GB))
    assert not crowded.permitted
    assert check(crowded, "GPU_PEAK").have == 5 * GB


def test_host_memory_is_judged_where_it_is_known():
    run, facts, predicted = estimated("regime=full", "node=h100_80", "node.gpus=8", "sharding=zero2_offload")

    assert {each.rule for each in judge(run, facts, predicted).checks} == {"PUBLISHED_FLOOR", "GPU_PEAK"}
    small = replace(run, node=replace(run.node, host_memory=64 * GB))
    verdict = judge(small, facts, predicted)
    assert not verdict.permitted
    assert check(verdict, "HOST_RAM").need == predicted.host
    assert "loading" in check(verdict, "HOST_RAM").sentence


def test_a_cpu_node_is_judged_by_its_host_memory_alone():
    verdict = judge(*estimated("regime=full", "node=cpu", "node.host_memory=16000000000"))

    assert {each.rule for each in verdict.checks} == {"PUBLISHED_FLOOR", "HOST_RAM"}
    assert check(verdict, "PUBLISHED_FLOOR").have == 16 * GB
    assert not verdict.permitted


def test_disk_is_judged_where_free_bytes_are_given():
    run, facts, predicted = estimated("regime=full", "node=h200_141")

    verdict = judge(run, facts, predicted, free_disk=predicted.disk - 1)

    assert [each.rule for each in verdict.checks if not each.passed] == ["DISK"]
    assert not verdict.permitted


@pytest.mark.parametrize(("mode", "checks"), [("advise", 2), ("off", 0)])
def test_advise_permits_with_its_checks_and_off_judges_nothing(mode: str, checks: int):
    verdict = judge(*estimated("regime=full", "node=rtx4090_24", f"gate.mode={mode}"))

    assert verdict.permitted
    assert len(verdict.checks) == checks


def test_a_verdict_is_written_with_both_numbers_of_every_check():
    written = judge(*estimated("regime=full", "node=rtx4090_24")).as_dict()

    assert written["permitted"] is False
    assert {"rule", "need", "have", "passed", "binding", "sentence"} == set(written["checks"][0])


def test_the_verdict_names_who_holds_the_memory_that_is_missing():
    run, facts, predicted = estimated("regime=lora", "node=h100_80", "node.gpus=1")
    crowded = judge(run, facts, predicted, (5 * GB,), users=("GPU 0: process 4711 holds 70000 MiB",))

    assert not crowded.permitted
    assert "4.66 GiB is free (GPU 0: process 4711 holds 70000 MiB)" in check(crowded, "GPU_PEAK").sentence


def test_a_small_need_is_told_in_mib():
    run, facts = with_facts("model=demo", "data=demo", "node=cpu")
    disk = check(judge(run, facts, estimate(run, facts), free_disk=0), "DISK")
    assert not disk.passed
    assert " MiB of disk; 0.0 MiB is free" in disk.sentence
