"""The time of a step: by hand, against what was measured on an H200, and what is said where a term is missing."""

import json
import statistics
from pathlib import Path

import pytest

from benchmarks.speed.cells import OPTED
from conf.schema import Run
from launcher.facts.model import ModelFacts
from launcher.timing.products import adapter_loads, attention_load, dequantising_load, product_loads
from launcher.timing.rates import ATTENTION, H200, attention_rate, rates_of
from launcher.timing.step import StepTime, step_time
from launcher.timing.traffic import optimizer_load
from launcher.timing.work import Load, work_of
from tests.described import described, with_facts

NODES = ("a100_40", "a100_80", "h100_80", "h200_141", "l40s_48", "rtx4090_24", "t4_16", "v100_32")
RESULTS = Path(__file__).parents[3] / "benchmarks" / "results" / "speed"
ONE_H200 = ("data=demo", "node=h200_141", "training.max_steps=10")
# Llama-2-7B: q, k, v, o 4 x 4096^2, MLP 3 x 4096 x 11008, in 32 layers; head 4096 x 32000
LAYER = 4 * 16_777_216 + 3 * 45_088_768
HEAD = 131_072_000
LLAMA = ("model=llama2_7b", "data.cutoff=2048", "training.micro_batch=2", *ONE_H200)


def told(*overrides: str) -> StepTime:
    return step_time(*with_facts(*overrides))


def seconds_of(found: StepTime) -> dict[str, float]:
    return {term.name: term.seconds for term in found.terms}


def loads(*overrides: str) -> dict[str, Load]:
    return {load.name: load for load in product_loads(work_of(*with_facts(*LLAMA, *overrides)))}


def test_products_of_full_training_are_two_operations_an_element_and_token() -> None:
    found = loads("regime=full", "training.gradient_checkpointing=8")
    assert found["forward products"].operations == 2 * 4096 * 32 * LAYER
    assert found["products computed again"].operations == 2 * 4096 * 8 * LAYER
    assert found["gradients of inputs"].operations == found["gradients of weights"].operations == 2 * 4096 * 32 * LAYER
    assert found["head"].operations == 3 * 2 * 4096 * HEAD
    assert "adapters" not in found


def test_each_matrix_of_a_product_passes_through_memory_once() -> None:
    # 16-bit values of q, k, v, o (4096 x 4096), gate, up and down (4096 x 11008), each with 4096 tokens of both sides
    of_a_layer = 2 * (4 * (2 * 4096 * 4096 + 4096 * 4096) + 3 * (4096 * 4096 + 4096 * 11008 + 4096 * 11008))
    assert loads("regime=full", "training.gradient_checkpointing=false")["forward products"].bytes == 32 * of_a_layer


def test_adapters_multiply_forward_and_twice_back_and_learn_nothing_else() -> None:
    run, facts = with_facts(*LLAMA, "regime=lora", "training.gradient_checkpointing=false")
    [adapters] = adapter_loads(work_of(run, facts))
    # rank 16 on all linears: 16 x (in + out) of q, k, v, o (8192 each) and gate, up, down (15104 each)
    assert adapters.operations == 3 * 2 * 4096 * 32 * 16 * (4 * 8192 + 3 * 15104)
    assert loads("regime=lora")["gradients of weights"].operations == 0


def test_attention_is_two_products_forward_and_five_back_of_the_causal_half() -> None:
    run, facts = with_facts(*LLAMA, "regime=full", "training.gradient_checkpointing=false")
    forward = 2 * 2 * 4096 * 1024 * 4096 * 32  # products x 2 operations x tokens x seen tokens x heads' widths x layers
    assert attention_load(work_of(run, facts)).operations == 3.5 * forward


def test_packed_weights_become_wide_in_each_pass() -> None:
    run, facts = with_facts(*LLAMA, "regime=qlora", "regime.bits=4", "training.gradient_checkpointing=true")
    found = dequantising_load(work_of(run, facts))
    # forward, again and back; half a byte, a scale of a byte for 64 and one of four for 64 x 256; two bytes written
    assert found is not None
    assert found.bytes == pytest.approx(3 * 32 * LAYER * (0.5 + 1 / 64 + 4 / (64 * 256) + 2), rel=1e-6)


def test_adamw_reads_and_writes_weights_and_both_moments() -> None:
    run, facts = with_facts(*LLAMA, "regime=full", "training.precision=bf16")
    # weight twice, gradient, both moments twice, 2 bytes each; clipping reads the gradient, then reads and writes it
    assert optimizer_load(work_of(run, facts), 1).bytes == pytest.approx((2 * 2 + 2 + 4 * 2 + 3 * 2) * facts.parameters)


def test_attention_has_the_measured_rates_where_it_was_measured() -> None:
    for (kernel, width), (short, long) in ATTENTION.items():
        assert attention_rate(H200, kernel, width, 2048) == pytest.approx(short)
        assert attention_rate(H200, kernel, width, 4096) == pytest.approx(long)
        assert attention_rate(H200, kernel, width, 512) < short < long < attention_rate(H200, kernel, width, 16384)


@pytest.mark.parametrize("node", NODES)
def test_every_node_has_rates_and_only_the_h200_is_measured(node: str) -> None:
    found = told("model=llama3.2_1b", "data=demo", f"node={node}", "training.precision=fp16_amp")
    rates = rates_of(described("model=llama3.2_1b", "data=demo", f"node={node}").node)
    assert rates is not None
    assert rates.measured == (node == "h200_141")
    assert found.missing == ()
    assert ("not measured on this card" in found.source) == (node != "h200_141")
    assert found.low < found.seconds < found.high


def test_a_slower_card_takes_longer() -> None:
    times = [told("model=llama3.2_1b", "regime=lora", "data=demo", "data.cutoff=2048", f"node={node}").seconds for node in NODES]
    by_node = dict(zip(NODES, times, strict=True))
    assert by_node["h200_141"] < by_node["h100_80"] < by_node["a100_80"] < by_node["l40s_48"] < by_node["rtx4090_24"] < by_node["t4_16"]


SEVENTY = ("model=llama3.1_70b", "regime=full", "data=demo", "data.cutoff=4096", "node=h100_80", "node.gpus=8", "training.max_steps=10")


def test_zero3_of_70b_moves_420_gb_at_the_rate_of_the_network() -> None:
    """70.55 billion weights of 2 bytes, gathered twice and reduced once, 127 of 128 parts through each rank: 420 GB, 8.4 s at 50 GB/s."""
    found = seconds_of(told(*SEVENTY, "sharding=zero3", "cluster.nodes=16", "node.network=50"))
    assert found["gathering weights"] == pytest.approx(2 * 2 * 70.554e9 * 127 / 128 / 50e9, rel=1e-3)
    assert found["reducing gradients"] == pytest.approx(2 * 70.554e9 * 127 / 128 / 50e9, rel=1e-3)
    # 2 operations a weight and token, for 4,096 tokens forward, again, and for both gradients, at 856 TFLOP/s: 2.7 s, and the operands
    products = sum(seconds for name, seconds in found.items() if "products" in name or "gradients of" in name or name == "head")
    assert 2.7 < products < 3.4


def test_the_host_gathers_weights_of_zero3_while_the_gpu_works() -> None:
    """146 weights of the 1B llama at 1.3 ms, or 0.65 by whole layers."""
    keys = ("model=llama3.2_1b", "regime=full", "training.micro_batch=4", "data.cutoff=2048", "node.gpus=2", *ONE_H200)
    plain, modules, layers = (
        next(term for term in told(*keys, *sharding).terms if term.name == "waiting for the host")
        for sharding in (("sharding=zero2",), ("sharding=zero3", "sharding.whole_layers=false"), ("sharding=zero3",))
    )
    assert "and 190 ms of the sharding engine" in modules.source
    assert "and 95 ms of the sharding engine" in layers.source
    assert "sharding engine" not in plain.source
    assert plain.seconds < layers.seconds < modules.seconds < plain.seconds + 0.19


def test_one_rank_exchanges_nothing() -> None:
    found = seconds_of(told(*SEVENTY, "sharding=ddp", "cluster.ranks_per_node=1"))
    assert not {"gathering weights", "reducing gradients", "offloading", "sharding engine"} & set(found)


MODULES = "zero3 sharding.whole_layers=false"


@pytest.mark.parametrize(("sharding", "share"), [("ddp", 0.94), ("fsdp2", 0.93), ("zero1", 0.89), ("zero2", 0.88), (MODULES, 0.64)])
def test_two_h200s_keep_the_share_of_ones_rate_that_they_kept(sharding: str, share: float) -> None:
    """1B, full bf16, micro-batch 4 x 2048 (conf/shardings.py)."""
    keys = ("model=llama3.2_1b", "regime=full", "training.precision=bf16", "training.micro_batch=4", "data.cutoff=2048")
    one, two = (told(*keys, *ONE_H200, f"node.gpus={gpus}", *f"sharding={sharding if gpus > 1 else 'ddp'}".split()) for gpus in (1, 2))
    assert one.seconds / two.seconds == pytest.approx(share, abs=0.05)


def test_a_base_that_is_dequantised_once_takes_the_time_of_lora() -> None:
    keys = ("model=llama3.2_1b", "training.kernels=plain", "training.gradient_checkpointing=true", *ONE_H200)
    plain, once = (told(*keys, *regime) for regime in (("regime=lora",), ("regime=qlora", "regime.dequantised=true")))
    assert once.seconds == pytest.approx(plain.seconds, rel=1e-6)


def test_offloaded_states_pass_through_pcie_and_host_memory() -> None:
    keys = ("model=llama3.1_8b", "regime=full", "data=demo", "node=h100_80", "node.host_memory=500000000000")
    found = seconds_of(told(*keys, "sharding=zero2_offload"))
    # gradients there and weights back, 2 bytes each over 64 GB/s; masters and both moments in fp32, 3 x 4 and 2 x 2 x 4 bytes, at 200 GB/s
    assert found["offloading"] == pytest.approx(8.03e9 * 4 / 64e9, rel=1e-3)
    assert found["optimizer on the CPU"] == pytest.approx(8.03e9 * 28 / 200e9, rel=1e-3)
    assert "optimizer" not in found


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("node=cpu",), "the rates of CPUs were not measured"),
        (("node=h100_80", "node.gpu_name=GB10"), "there is no row for the memory of GB10"),
        (("node=h100_80", "node.tflops=null"), "node.tflops of this node is not known"),
        (("node=h100_80", "cluster.nodes=2"), "node.network is not stated"),
        (("node=t4_16", "regime=qlora"), "has no products in bf16"),
        (("node=v100_32", "regime=lora", "training.precision=bf16"), "has no products in bf16"),
        (("node=h100_80", "stage=grpo", "training.effective_batch=8"), "stage=grpo writes answers"),
        (("node=h100_80", "training.precision=fp32"), "training.precision=fp32 was not timed"),
        (("node=h100_80", "training.attention=eager"), "training.attention=eager was not timed"),
        (("node=h100_80", "regime=qlora", "regime.bits=8"), "regime.bits=8 was not timed"),
        (("node=h100_80", "training.deterministic=true"), "training.deterministic=true was not timed"),
        (("node=h100_80", "optim=muon", "regime=full"), "optim=muon was not timed"),
    ],
)
def test_what_no_term_stands_for_is_said_and_no_number_is_given(overrides: tuple[str, ...], why: str) -> None:
    found = told("model=llama3.2_1b", "data=demo", *overrides)
    assert any(why in each for each in found.missing)
    assert found.as_dict()["step"] is None
    assert found.as_dict()["tokens_per_second"] is None


CHOSEN = {"8b-lora": 4, "8b-qlora": 4, "1b-full": 4, "8b-full": 2}  # micro-batches of the default runs, all fused and without checkpointing
KEPT = ("model", "regime", "regime.bits", "data.cutoff", "training.precision", "training.micro_batch", "training.accumulation", "training.kernels")


def recorded() -> list[tuple[Run, ModelFacts, float]]:
    """The runs of h200_speed.jsonl with rows of full length, but for what no term stands for; of them only the rate of dequantising was taken."""
    lines = [json.loads(line) for line in (RESULTS / "h200_speed.jsonl").read_text().splitlines()]
    return [recorded_run(line) for line in lines if "mixed" not in line["cell"] and tuple(line["cell"].split("/")) not in OPTED]


def recorded_run(line: dict) -> tuple[Run, ModelFacts, float]:
    cell, variant = line["cell"].split("/")
    given = dict(word.split("=", 1) for word in line["command"] if "=" in word)
    keys = {key: given[key] for key in KEPT if key in given}
    if variant == "default":
        keys |= {"training.micro_batch": str(CHOSEN[cell]), "training.kernels": "fused"}
    fused = keys.setdefault("training.kernels", "plain") == "fused"
    again = variant == "kernels-recomputed"
    others = (f"training.gradient_checkpointing={str(again).lower()}", "training.loss=fused", f"training.attention={'varlen' if fused else 'sdpa'}")
    run, facts = with_facts(*(f"{key}={value}" for key, value in keys.items()), *others, *ONE_H200)
    return run, facts, line["step_seconds"]


def test_the_times_of_recorded_runs_that_no_other_rate_was_fitted_to_are_met() -> None:
    errors = [abs(step_time(run, facts).seconds / seconds - 1) for run, facts, seconds in recorded()]
    assert len(errors) == 14
    assert statistics.median(errors) < 0.02
    assert max(errors) < 0.05


def test_nothing_is_computed_again_without_checkpointing() -> None:
    assert loads("regime=full", "training.gradient_checkpointing=false")["products computed again"].operations == 0
