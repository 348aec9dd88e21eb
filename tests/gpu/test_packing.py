"""Packed rows on a GPU, by torch's variable-length kernels: what single rows give, and no memory that grows with the square of the length."""

import json
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, set_seed

from conf.run_dir import RunDir, save_run
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run
from trainers.data.rows.collator import bounded_batch, packed_batch
from trainers.data.rows.packing import PackedRow, packed_row
from trainers.model.attention import implementation
from trainers.ranks.place import Place

pytestmark = pytest.mark.gpu(1)

LENGTHS = ((100, 37, 263), (300, 99), (1, 250))
SIZES = {
    "vocab_size": 512,
    "hidden_size": 512,
    "intermediate_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "pad_token_id": 0,
}
LATENT = {"q_lora_rank": 64, "kv_lora_rank": 64, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "num_key_value_heads": 8}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SIZES),
    "heads of 36": ("llama", SIZES | {"hidden_size": 288}),
    "window of 64": ("mistral", SIZES | {"sliding_window": 64}),
    "heads of 256, every other layer windowed": (
        "gemma3_text",
        SIZES | {"head_dim": 256, "num_attention_heads": 4, "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "values narrower than keys": (
        "deepseek_v3",
        SIZES | LATENT | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 2},
    ),
    "gpt2": ("gpt2", {"vocab_size": 512, "n_embd": 512, "n_layer": 2, "n_head": 8, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
}
VARLEN = ("data.packing=true", "training.attention=varlen")


def model_of(shape: str, attention: str, dtype: torch.dtype, **more: Any) -> PreTrainedModel:
    """The same weights whatever their dtype: drawn in fp32."""
    implementation(compose(["model=demo", "data=demo", *VARLEN]))
    family, sizes = MODELS[shape]
    set_seed(1)
    config = AutoConfig.for_model(family, **sizes | more)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    return model.to("cuda", dtype).train()


def rows(lengths: tuple[tuple[int, ...], ...]) -> list[PackedRow]:
    set_seed(2)
    samples = [[torch.randint(1, 512, (length,)).tolist() for length in row] for row in lengths]
    return [packed_row([(ids, [-100, *ids[1:]]) for ids in row]) for row in samples]


def on_gpu(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value.cuda() if isinstance(value, Tensor) else value for key, value in batch.items()}


def bounded(lengths: tuple[tuple[int, ...], ...]) -> dict[str, Any]:
    return on_gpu(bounded_batch([{**row} for row in rows(lengths)], padding=0, multiple=8))


def learned(lengths: tuple[tuple[int, ...], ...]) -> int:
    return sum(length - 1 for row in lengths for length in row)


def gradient(model: PreTrainedModel) -> Tensor:
    found = torch.cat([weight.grad.float().flatten() for weight in model.parameters() if weight.grad is not None])
    model.zero_grad()
    return found


def packed_pass(model: PreTrainedModel, amp: bool) -> tuple[float, Tensor]:
    with torch.autocast("cuda", torch.bfloat16) if amp else nullcontext():
        loss = model(**bounded(LENGTHS), num_items_in_batch=learned(LENGTHS)).loss
    loss.backward()
    return loss.item(), gradient(model)


def single_passes(model: PreTrainedModel, amp: bool) -> tuple[float, Tensor]:
    total = 0.0
    for row, lengths in zip(rows(LENGTHS), LENGTHS, strict=True):
        for ids in torch.tensor(row["input_ids"]).cuda().split(lengths):
            with torch.autocast("cuda", torch.bfloat16) if amp else nullcontext():
                loss = model(input_ids=ids[None], labels=ids[None], use_cache=False, num_items_in_batch=learned(LENGTHS)).loss
            loss.backward()
            total += loss.item()
    return total, gradient(model)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("precision", ["bf16_amp", "bf16"])
@pytest.mark.parametrize("shape", MODELS)
def test_packed_rows_are_as_near_to_fp32_as_their_samples_alone(shape: str, precision: str, checkpointing: bool) -> None:
    """A sample alone differs from fp32 by the rounding of 16 bits; packed it may differ half as much again, as other sums are rounded."""
    amp, dtype = precision == "bf16_amp", torch.float32 if precision == "bf16_amp" else torch.bfloat16
    exact_loss, exact = single_passes(model_of(shape, "sdpa", torch.float32), amp=False)
    alone_loss, alone = single_passes(model_of(shape, "sdpa", dtype), amp)
    model = model_of(shape, "varlen", dtype)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    packed_loss, packed = packed_pass(model, amp)
    assert packed_loss == pytest.approx(alone_loss, rel=2**-8)
    assert packed_loss == pytest.approx(exact_loss, rel=2**-7)
    assert 0 < (alone - exact).norm() < 0.1 * exact.norm()
    assert (packed - exact).norm() < 1.5 * (alone - exact).norm()


def test_a_changed_sample_leaves_the_logits_of_the_others_as_they_were_to_the_last_bit() -> None:
    model, given = model_of("llama", "varlen", torch.bfloat16).eval(), bounded(LENGTHS)
    changed = given["input_ids"].clone()
    changed[0, 100:137] = 511 - changed[0, 100:137]
    with torch.no_grad():
        before, after = model(**given).logits, model(**{**given, "input_ids": changed}).logits
    for row, untouched in ((0, slice(0, 100)), (0, slice(137, 400)), (1, slice(None)), (2, slice(None))):
        assert torch.equal(before[row, untouched], after[row, untouched])
    assert not torch.equal(before[0, 100:137], after[0, 100:137])


def test_the_kernels_refuse_fp32_in_the_words_of_the_compatibility_table() -> None:
    with pytest.raises(RuntimeError, match="FlashAttention only support fp16 and bf16 data type"):
        packed_pass(model_of("llama", "varlen", torch.float32), amp=False)


def peak(attention: str, length: int, shape: str) -> int:
    """Bytes that a pass over one row of samples of 1024 tokens takes beyond the weights."""
    model = model_of(shape, attention, torch.bfloat16, hidden_size=128, intermediate_size=128, num_attention_heads=4, num_hidden_layers=1)
    lengths = ((1024,) * (length // 1024),)
    batch = bounded(lengths) if attention == "varlen" else on_gpu(packed_batch([{**row} for row in rows(lengths)], padding=0, multiple=8))
    for _ in range(2):  # the first pass makes cuBLAS' workspaces
        model.zero_grad()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        model(**batch).loss.backward()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("shape", ["llama", "window of 64"])
def test_memory_grows_with_the_length_and_not_with_its_square(shape: str) -> None:
    assert peak("varlen", 8192, shape) < 2.05 * peak("varlen", 4096, shape)
    mask = 8192**2  # a boolean of length x length, which transformers builds for sdpa
    assert peak("sdpa", 8192, shape) > peak("varlen", 8192, shape) + mask


def test_a_row_of_one_sample_longer_than_the_window_builds_no_mask_either() -> None:
    model = model_of("window of 64", "varlen", torch.bfloat16, hidden_size=128, intermediate_size=128, num_attention_heads=4, num_hidden_layers=1)
    batch = bounded(((8192,),))
    model(**batch).loss.backward()
    model.zero_grad()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model(**batch).loss.backward()
    assert torch.cuda.max_memory_allocated() - before < peak("varlen", 8192, "window of 64") + 8192**2 // 8


@pytest.mark.parametrize(
    "overrides",
    [
        ("regime=full", "training.precision=bf16_amp"),
        ("regime=full", "training.precision=bf16", "training.loss=chunked"),
        ("regime=lora", "training.precision=fp16_amp"),
        ("regime=qlora", "regime.bits=4"),
        ("regime=full", "stage=pt", "training.loss=fused"),
    ],
    ids=" ".join,
)
def test_a_packed_run_evaluates_answers_and_ends_with_a_lower_loss(overrides: tuple[str, ...], tmp_path: Path) -> None:
    from accelerate.state import AcceleratorState, GradientState

    from trainers.run import train

    if "training.loss=fused" in overrides:
        pytest.importorskip("liger_kernel")
    described = ("model=demo", "data=demo", "data.packing=true", "data.cutoff=128", "training.max_steps=20", "training.micro_batch=2")
    steps = ("optim.lr=0.005", "optim.warmup=0", "evaluation.interval=10", "evaluation.micro_batch=2", "checkpoint.interval=10")
    generating = "evaluation.generate='What is 3 + 4?'"
    run = judge_run(compose([*described, *steps, *overrides, generating, "node=auto", "cluster.ranks_per_node=1", "sharding=ddp"])).run
    assert run.training.attention == "varlen"
    run_dir = RunDir(tmp_path / "packed" / "once")
    run_dir.path.mkdir(parents=True)
    save_run(run, run_dir)
    AcceleratorState._reset_state()
    GradientState._reset_state()
    assert train(run, run_dir, Place(0, 0, 1)) == (0, "finished")
    entries = [json.loads(line) for line in run_dir.progress.read_text().splitlines()]
    losses = [entry["eval_loss"] for entry in entries if "eval_loss" in entry]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
