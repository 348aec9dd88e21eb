from dataclasses import replace

import pytest

from launcher.memory.estimate import estimate, estimate_batch
from launcher.memory.step.activations import Batch

GIB = 2**30
FULL_BF16, FULL_AMP, LORA_AMP, QLORA_AMP = (
    ["regime=full", "training.precision=bf16"],
    ["regime=full"],
    ["regime=lora"],
    ["regime=qlora"],
)

# Peak allocated, GiB, measured on one NVIDIA H200 with torch 2.11.0+cu130, transformers 5.17.0, peft 0.21.2, bitsandbytes 0.50.2:
# sdpa without a mask, the library's own loss, fused AdamW, LoRA of rank 16 on all seven linear layers, expandable segments.
ONE_H200 = [
    ("qwen2.5_0.5b", FULL_BF16, 8, 1024, False, 27.30),
    ("llama3.1_8b", FULL_BF16, 1, 2048, True, 59.91),
    ("llama3.1_8b", LORA_AMP, 1, 2048, True, 18.96),
    ("llama3.1_8b", LORA_AMP, 2, 2048, False, 47.98),
    ("qwen2.5_1.5b", FULL_AMP, 2, 2048, True, 26.73),
    ("qwen2.5_1.5b", FULL_BF16, 4, 2048, False, 44.80),
    ("llama3.2_1b", FULL_AMP, 4, 2048, False, 43.84),
    ("llama3.1_8b", QLORA_AMP, 1, 2048, True, 9.31),
    ("llama3.1_8b", QLORA_AMP, 2, 4096, True, 19.71),
    ("llama3.1_8b", FULL_BF16, 1, 8192, True, 60.72),
    ("llama3.2_1b", LORA_AMP, 8, 4096, True, 51.71),
    ("llama3.1_8b", LORA_AMP, 1, 8192, True, 29.36),
]

# Peak allocated and NVML used, GiB per GPU, of 2 x NVIDIA H200 over NVLink: HF Trainer, DeepSpeed 0.19.8, checkpointing, 2048 tokens a sample.
# One GPU and DDP trained bf16 weights with bf16 states; DeepSpeed's engine kept fp32 masters. ZeRO-3 ran with DeepSpeed's own bucket of 500 M
# elements, 0.93 GiB, which is taken off here: the trainers let transformers make it as large as the width squared.
# ZeRO-1 and 2 reserved two buckets of 500 M elements beside their peak; what the two of today are smaller is taken off NVML's figure.
SMALLER_BUCKETS = 2 * 2 * (500_000_000 - 2**26) / 2**30
TWO_H200 = [
    ("llama3.2_1b", 4, ["node.gpus=1", "training.precision=bf16"], 19.34, 22.34),
    ("llama3.2_1b", 4, ["node.gpus=2", "training.precision=bf16"], 21.64, 25.54),
    ("llama3.2_1b", 4, ["node.gpus=2", "sharding=zero1"], 21.64, 31.09 - SMALLER_BUCKETS),
    ("llama3.2_1b", 4, ["node.gpus=2", "sharding=zero2"], 21.64, 31.09 - SMALLER_BUCKETS),
    ("llama3.2_1b", 4, ["node.gpus=2", "sharding=zero3", "sharding.whole_layers=false"], 23.52, 29.61),
    ("llama3.1_8b", 2, ["node.gpus=2", "sharding=zero2"], 89.81, 99.88 - SMALLER_BUCKETS),
    ("llama3.1_8b", 2, ["node.gpus=2", "sharding=zero3", "sharding.whole_layers=false"], 68.79, 74.32),
]


@pytest.mark.parametrize(("model", "regime", "samples", "length", "checkpointing", "measured"), ONE_H200)
def test_peak_allocated_is_within_half_a_percent_of_one_measured_h200(described, model, regime, samples, length, checkpointing, measured):
    run, facts = described(
        f"model={model}", *regime, f"training.micro_batch={samples}", f"data.cutoff={length}", f"training.gradient_checkpointing={checkpointing}"
    )

    predicted = estimate_batch(run, facts, Batch(samples, length, masked=False))

    assert predicted.allocated / GIB == pytest.approx(measured, rel=0.005)
    assert not predicted.approximate


@pytest.mark.parametrize(("model", "samples", "overrides", "allocated", "nvml"), TWO_H200)
def test_sharded_peaks_are_within_half_a_percent_of_two_measured_h200s_and_nvml_within_a_fifth(described, model, samples, overrides, allocated, nvml):
    run, facts = described(f"model={model}", "regime=full", "data.cutoff=2048", f"training.micro_batch={samples}", *overrides)

    predicted = estimate_batch(run, facts, Batch(samples, 2048, masked=False))

    assert predicted.allocated / GIB == pytest.approx(allocated, rel=0.005)
    assert predicted.nvml / GIB == pytest.approx(
        nvml, rel=0.18
    )  # what the allocator caches varies: ZeRO-1 and ZeRO-2 of the 1 B model most, measured with workspaces in the step


def test_peak_is_the_largest_phase_and_never_a_sum(described):
    predicted = estimate(*described("regime=full"))

    assert predicted.allocated == max(phase.bytes for phase in predicted.phases)
    assert predicted.allocated < sum(phase.bytes for phase in predicted.phases)


def test_required_lies_between_allocated_and_what_nvidia_smi_shows(described):
    predicted = estimate(*described("model=llama3.1_8b"))

    assert predicted.allocated < predicted.required <= predicted.nvml
    assert predicted.required == predicted.allocated + 9 * 20 * 2**20 + int(1.287 * GIB)


def test_pages_that_are_partly_used_are_needed_too_more_under_autocast_and_a_hundredth_of_large_jobs(described):
    def beyond(*overrides):
        predicted = estimate(*described("model=llama3.2_1b", "data.cutoff=512", "training.micro_batch=1", "node.gpus=1", *overrides))
        return predicted.required - predicted.allocated - int(1.287 * GIB)

    assert beyond("regime=full", "training.precision=bf16") == beyond("regime=lora") == 9 * 20 * 2**20
    assert beyond("regime=full") == 19 * 20 * 2**20
    large = estimate(*described("model=llama3.1_8b", "regime=full", "node.gpus=1"))
    assert large.required == large.allocated + int(0.01 * large.allocated) + int(1.287 * GIB)


def test_accumulation_keeps_all_gradients_during_the_loss(described):
    alone, facts = described("model=llama3.2_1b", "regime=full")
    accumulating, _ = described("model=llama3.2_1b", "regime=full", "training.accumulation=4")

    def loss_phase(run):
        return next(phase.bytes for phase in estimate(run, facts).phases if phase.name == "backward: loss")

    assert loss_phase(accumulating) - loss_phase(alone) == 4 * facts.parameters


def test_several_samples_need_a_mask_and_repeated_keys(described):
    run, facts = described("model=llama3.1_8b", "training.gradient_checkpointing=false", "training.micro_batch=2", "data.cutoff=1024")

    masked = estimate(run, facts).allocated
    bare = estimate_batch(run, facts, Batch(2, 1024, masked=False)).allocated

    # 32 layers: k and v repeated from 8 to 32 heads of 128 in 2 bytes per token, and a 2-byte bias of B x S x S.
    tokens, squares = 2 * 1024, 2 * 1024 * 1024
    assert masked - bare == 32 * (2 * 2 * (32 - 8) * 128 * tokens + 2 * squares)


def test_families_that_were_never_traced_are_marked_approximate(described):
    run, facts = described()

    assert not estimate(run, facts).approximate
    assert "olmo2" in estimate(run, replace(facts, family="olmo2", traits=replace(facts.traits, traced=False))).doubts[0]


def test_a_cpu_node_has_no_gpu_terms_and_counts_every_rank_in_host_memory(described):
    run, facts = described("node=cpu", "node.host_memory=8000000000", "regime=full", "training.precision=fp32", "cluster.ranks_per_node=3")

    predicted = estimate(run, facts)

    assert predicted.outside == ()
    assert predicted.nvml == 0
    assert {term.name: term.bytes for term in predicted.host_terms}["training"] == 3 * predicted.allocated
    assert all(term.name != "cuBLAS workspace" for term in predicted.peak.terms)


def test_more_ranks_never_raise_the_peak_under_zero3(described):
    peaks = [estimate(*described("model=llama3.1_8b", "regime=full", "sharding=zero3", f"node.gpus={gpus}")).allocated for gpus in (1, 2, 4, 8)]

    assert peaks == sorted(peaks, reverse=True)


def test_every_term_names_its_source(described):
    for overrides in (["regime=full"], ["regime=qlora"], ["regime=lora", "sharding=zero3", "node.gpus=2"], ["sharding=zero2_offload", "regime=full"]):
        predicted = estimate(*described(*overrides))
        terms = [term for phase in predicted.phases for term in phase.terms] + [*predicted.outside, *predicted.host_terms, *predicted.disk_terms]
        assert all(term.source and term.bytes >= 0 for term in terms)
