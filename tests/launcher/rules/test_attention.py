"""The attention that a run which names none computes with."""

from dataclasses import replace

import pytest

from launcher.composition.compose import compose
from launcher.facts.model.families import traits_of
from launcher.gate.judge import judge_run
from launcher.rules.attention import chosen_attention
from launcher.verbs.plan_text import run_sentence
from tests.described import described

GPU = ("model=demo", "data=demo", "node=h100_80")


@pytest.mark.parametrize(
    ("overrides", "chosen"),
    [
        ((), "sdpa"),
        (("data.packing=true",), "varlen"),
        (("data.packing=true", "training.precision=fp32"), "sdpa"),
        (("data.packing=true", "training.precision=fp32", "node=cpu"), "varlen"),
        (("data.packing=true", "training.precision=fp16_amp", "node=t4_16"), "sdpa"),
        (("data.packing=true", "node=l40s_48"), "varlen"),
        (("data.packing=true", "model.architecture.model_type=gemma2"), "eager"),
        (("model.architecture.model_type=gemma2",), "eager"),
        (("data.packing=true", "model.architecture.model_type=gpt2"), "sdpa"),  # attn_pdrop is 0.1 unless its config.json says other
        (("data.packing=true", "model.architecture.model_type=olmo2"), "sdpa"),
        (("data.packing=true", "training.attention=eager"), "eager"),
    ],
)
def test_packed_rows_take_the_kernels_that_need_no_mask_where_those_work(overrides: tuple[str, ...], chosen: str) -> None:
    assert described(*GPU, *overrides).training.attention == chosen


def test_a_sliding_window_that_only_masks_are_told_of_keeps_to_masks() -> None:
    run = described(*GPU, "data.packing=true", "model.architecture.model_type=qwen2_moe")
    assert run.training.attention == "varlen"
    windowed = replace(run, model=replace(run.model, architecture={**run.model.architecture, "use_sliding_window": True}))
    assert chosen_attention(windowed) == "sdpa"


@pytest.mark.parametrize("model", ["llama3.1_8b", "qwen2.5_0.5b", "mixtral_8x22b"])
def test_presets_without_attention_dropout_pack_under_varlen(model: str) -> None:
    run = described(f"model={model}", "data=demo", "node=h100_80", "data.packing=true")
    assert traits_of(run.model.architecture["model_type"]).varlen
    assert run.training.attention == "varlen"


def test_the_plan_says_which_attention_keeps_packed_samples_apart() -> None:
    judged = judge_run(compose([*GPU, "node.gpus=1", "node.host_memory=64000000000", "data.packing=true"]))
    assert judged.run.training.attention == "varlen"
    assert "of at most 64 tokens, packed under varlen attention, on 1 x" in run_sentence(judged)


def test_varlen_keeps_no_mask_and_no_repeated_keys_in_the_estimate() -> None:
    sizes = {}
    for attention in ("varlen", "sdpa"):
        overrides = ("model=qwen2.5_0.5b", "data=demo", "data.cutoff=8192", "node=h100_80", "node.gpus=1", "node.host_memory=64000000000")
        judged = judge_run(compose([*overrides, "data.packing=true", f"training.attention={attention}", "training.gradient_checkpointing=false"]))
        sizes[attention] = judged.estimate.allocated
    bias = 2 * 8192**2  # a mask's 16-bit bias of length x length inside of every attention call, kept for each of 24 layers
    repeated = 2 * 2 * (14 - 2) * 64 * 8192  # keys and values of 2 heads repeated for 14, 64 wide, 16 bits
    assert sizes["sdpa"] - sizes["varlen"] >= 24 * (bias + repeated)
