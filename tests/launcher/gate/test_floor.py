"""The published table against real cards. Sizes of the table are GB = 10^9 bytes, those of the cards are what nvidia-smi reports."""

from dataclasses import replace

import pytest

from conf.schema import Run
from launcher.facts.model import ModelFacts, ModuleKind, model_facts, read_architecture
from launcher.gate.verdict import Check, floor_check
from tests.described import composed, described

MIB = 2**20
CARDS = {  # MiB as nvidia-smi prints them
    "t4_16": 15360,
    "rtx4090_24": 24564,
    "a100_40": 40960,
    "a100_80": 81920,
    "h100_80": 81559,
    "h200_141": 143771,
}
REGIMES = {
    "full_amp": ("regime=full", "training.precision=bf16_amp"),
    "full": ("regime=full", "training.precision=bf16"),
    "freeze": ("regime=freeze",),
    "lora": ("regime=lora",),
    "qlora8": ("regime=qlora", "regime.bits=8"),
    "qlora4": ("regime=qlora", "regime.bits=4"),
}
# Needs in GB, by hand. 0.5B = 494,032,768 lies below the first column, 6,738,415,616: 120 x 0.494032768 / 6.738415616 = 8.798.
# 40B lies between 32,763,876,352 and 68,976,648,192: 64 + (160 - 64) x (40 - 32.763876352) / 36.21277184 = 83.183.
# 200B lies above the last column, 111,209,914,368: 72 x 200 / 111.209914368 = 129.485, 140 x 200 / 111.209914368 = 251.776.
NEEDS = {
    ("0.5B", "full_amp"): 8.798,
    ("7B", "lora"): 16.0,
    ("7B", "freeze"): 20.0,
    ("7B", "full"): 60.0,
    ("7B", "qlora8"): 10.0,
    ("40B", "lora"): 83.183,
    ("46.7B MoE", "lora"): 120.0,
    ("46.7B MoE", "qlora8"): 60.0,
    ("200B", "qlora4"): 129.485,
    ("200B", "qlora8"): 251.776,
}
# The smallest card of the list that is permitted, None: none of them.
SMALLEST = {
    ("0.5B", "full_amp"): "t4_16",  # 15360 MiB are 16.106 GB
    ("7B", "lora"): "t4_16",
    ("7B", "freeze"): "rtx4090_24",  # 24564 MiB are 25.757 GB
    ("7B", "full"): "h100_80",  # 40960 MiB are 42.950 GB
    ("7B", "qlora8"): "t4_16",
    ("40B", "lora"): "h100_80",  # 81559 MiB are 85.521 GB, less than the A100's 81920
    ("46.7B MoE", "lora"): "h200_141",  # 143771 MiB are 150.755 GB
    ("46.7B MoE", "qlora8"): "h100_80",
    ("200B", "qlora4"): "h200_141",
    ("200B", "qlora8"): None,
}


def facts_of(size: str) -> ModelFacts:
    presets = {"0.5B": "qwen2.5_0.5b", "7B": "llama2_7b", "46.7B MoE": "mixtral_8x7b"}
    model = composed(f"model={presets.get(size, 'llama2_7b')}", "data=demo").model
    facts = model_facts(read_architecture(model), model.name)
    if size in presets:
        return facts
    whole = {"40B": 40 * 10**9, "200B": 200 * 10**9}[size]
    return replace(facts, modules=(ModuleKind("everything", "other", 0, 0, whole, ()),))


def run_on(card: str, regime: str, *overrides: str) -> Run:
    return described("model=demo", "data=demo", f"node={card}", *REGIMES[regime], *overrides)


def check(size: str, regime: str, card: str, *overrides: str) -> Check:
    return floor_check(run_on(card, regime, *overrides), facts_of(size))


@pytest.mark.parametrize(("size", "regime"), NEEDS)
def test_the_need_is_that_of_the_table_on_the_true_count(size: str, regime: str) -> None:
    assert check(size, regime, "t4_16").need == pytest.approx(NEEDS[size, regime] * 10**9, rel=1e-4)


@pytest.mark.parametrize(("size", "regime"), SMALLEST)
@pytest.mark.parametrize("card", CARDS)
def test_a_card_is_permitted_from_the_smallest_that_holds_the_need(size: str, regime: str, card: str) -> None:
    found = check(size, regime, card)
    smallest = SMALLEST[size, regime]
    assert found.passed == (smallest is not None and CARDS[card] >= CARDS[smallest])
    assert found.have == CARDS[card] * MIB


def test_a_job_on_one_gpu_of_eight_has_the_memory_of_one() -> None:
    one = check("46.7B MoE", "lora", "h100_80", "node.gpus=8", "cluster.ranks_per_node=1")
    two = check("46.7B MoE", "lora", "h100_80", "node.gpus=8", "cluster.ranks_per_node=2")
    assert (one.have, one.passed) == (85_520_809_984, False)
    assert (two.have, two.passed) == (171_041_619_968, True)


def test_the_gpus_of_every_node_count() -> None:
    found = check("200B", "qlora8", "h200_141", "cluster=slurm", "cluster.nodes=2", "cluster.ranks_per_node=1")
    assert (found.have, found.passed) == (301_509_640_192, True)
