"""Products in 8-bit floating point: what is rounded, how far that is from 16 bits, and what it does to a training."""

from collections.abc import Iterator
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, set_seed

from conf.kernels import FUSED_FAMILIES
from tests.trainers.small_models import WIDE
from trainers.kernels.bases import Buffer
from trainers.kernels.fp8 import E4M3, Fp8Base, Fp8Products, quantise_columns, quantise_rows, scales_of
from trainers.kernels.lora import fuse_adapters, products_in_fp8

OF_FAMILY: dict[str, dict[str, Any]] = {"gemma3_text": {"head_dim": 16}, "qwen3": {"head_dim": 16}}
STEPS = 20


def adapted(family: str, **adapter: Any) -> PeftModel:
    set_seed(1)
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **WIDE | OF_FAMILY.get(family, {})), dtype=torch.bfloat16)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM", **adapter)
    return get_peft_model(base, config, autocast_adapter_dtype=False).train()


def passed(model: nn.Module, tokens: Tensor) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    return loss.item(), {name: weight.grad.float() for name, weight in model.named_parameters() if weight.grad is not None}


def batches() -> Iterator[Tensor]:
    draw = torch.Generator().manual_seed(4)
    while True:
        yield torch.randint(1, 30, (2, 24), generator=draw)


def test_a_row_is_rounded_to_four_significant_bits_and_a_scale() -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(40, 96, generator=draw, dtype=torch.float32).bfloat16()
    values[3] = 0
    values[5, 7] = 1e4
    rows, scales = quantise_rows(values)
    assert (rows.dtype, rows.shape, scales.dtype, scales.shape) == (E4M3, (40, 96), torch.float32, (40, 1))
    back = rows.float() * scales
    off = (back - values.float()).abs()
    # half of the spacing: 2**-4 of a number, or 2**-10 of a scale for the smallest ones
    assert bool((off <= torch.maximum(values.float().abs() * 2**-4, scales * 2**-10) * (1 + 1e-6)).all())
    assert torch.allclose(back.abs().amax(1), values.float().abs().amax(1), rtol=1e-6)  # the largest of a row is kept
    assert not back[3].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none(bad: float) -> None:
    values = torch.ones(2, 16)
    values[1, 3] = bad
    rows, scales = quantise_rows(values)
    kept = (rows.float() * scales).isfinite().all(1)
    assert kept.tolist() == [True, False]


def test_columns_have_the_rounding_of_the_transposed_rows() -> None:
    weight = torch.randn(48, 32, generator=torch.Generator().manual_seed(0))
    scales = scales_of(weight.abs().amax(0)).unsqueeze(1)
    turned = quantise_columns(weight, scales, torch.empty(32, 48, dtype=E4M3))
    rows, expected = quantise_rows(weight.t().contiguous())
    assert torch.equal(scales, expected)
    assert torch.equal(turned.float(), rows.float())


@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_the_rounded_numbers(bias: bool) -> None:
    """To the rounding of the answers to bf16, of which there are up to three."""
    set_seed(0)
    layers = [nn.Linear(64, outputs, bias=bias, dtype=torch.bfloat16) for outputs in (96, 32)]
    buffer = Buffer()
    products = Fp8Products([Fp8Base(layer, buffer) for layer in layers])
    hidden, a = torch.randn(50, 64).bfloat16(), torch.randn(4, 64).bfloat16()
    inners, bs = [torch.randn(50, 4).bfloat16() for _ in layers], [torch.randn(4, layer.out_features).bfloat16() for layer in layers]
    outer, inside = [torch.randn(50, layer.out_features).bfloat16() for layer in layers], torch.randn(50, 4).bfloat16()

    def rounded(values: Tensor) -> Tensor:
        rows, scales = quantise_rows(values)
        return rows.float() * scales

    with torch.no_grad():
        outputs = products.outputs(hidden, inners, bs)
        for output, layer, inner, b in zip(outputs, layers, inners, bs, strict=True):
            exact = rounded(hidden) @ rounded(layer.weight).t() + inner.float() @ b.float() + (layer.bias.float() if bias else 0)
            assert (output.float() - exact).norm() < 2**-7 * exact.norm()
        exact = inside.float() @ a.float()
        for gradient, layer in zip(outer, layers, strict=True):
            exact = exact + rounded(gradient) @ rounded(layer.weight.t()).t()
        for dropped in (None, inside @ a):
            found = products.gradient(outer, inside, a, None if dropped is None else dropped.clone())
            assert (found.float() - exact).norm() < 2**-7 * exact.norm()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("family", sorted(FUSED_FAMILIES))
def test_loss_and_gradients_are_near_those_of_16_bits(family: str, dropout: float) -> None:
    """The loss to a thousandth. Gradients of llama differ by 2.5 %, as a product does whose numbers are off by as much in the mean; norms of queries
    and keys make more of it, gemma3_text 17 %.
    """
    plain = adapted(family, lora_dropout=dropout)
    rounded, tokens = deepcopy(plain), next(batches())
    assert fuse_adapters(plain) == fuse_adapters(rounded, fp8=True) == {}
    assert products_in_fp8(plain)[0] == 0
    assert products_in_fp8(rounded)[1] == 0
    set_seed(3)
    loss, gradients = passed(plain, tokens)
    set_seed(3)
    other, found = passed(rounded, tokens)
    assert other != loss
    assert other == pytest.approx(loss, rel=0.001)
    assert found.keys() == gradients.keys()
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert torch.stack([(found[name] - gradients[name]).norm() for name in gradients]).norm() < norm / 4


def test_a_training_loses_nearly_nothing_by_it() -> None:
    """Twenty steps of AdamW: each loss within 1 % of that of 16 bits, while they fall by 5 %."""
    plain = adapted("llama")
    rounded, losses = deepcopy(plain), {}
    fuse_adapters(plain)
    fuse_adapters(rounded, fp8=True)
    repeated = list(islice(batches(), 2)) * (STEPS // 2)
    for name, model in (("plain", plain), ("rounded", rounded)):
        optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=0.02)
        losses[name] = []
        for tokens in repeated:
            loss, _ = passed(model, tokens)
            optimizer.step()
            losses[name].append(loss)
    assert losses["rounded"] == pytest.approx(losses["plain"], rel=0.01)
    assert losses["plain"][-1] < losses["plain"][0] - 0.2


def test_recomputed_layers_give_the_same_gradients() -> None:
    model = adapted("llama")
    fuse_adapters(model, fp8=True)
    tokens = next(batches())
    kept = passed(model, tokens)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    recomputed = passed(model, tokens)
    assert recomputed[0] == kept[0]
    assert all(torch.equal(recomputed[1][name], kept[1][name]) for name in kept[1])


def test_passes_without_gradients_stay_in_16_bits() -> None:
    plain = adapted("llama")
    rounded, tokens = deepcopy(plain), next(batches())
    fuse_adapters(rounded, fp8=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rounded.eval()(input_ids=tokens).logits, plain.eval()(input_ids=tokens).logits)


def test_matrices_of_other_sizes_stay_in_16_bits_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An MLP of 120 has three matrices in each of two layers that no 8-bit product takes."""
    monkeypatch.setitem(WIDE, "intermediate_size", 120)
    model = adapted("llama")
    assert fuse_adapters(model, fp8=True) == {}
    assert products_in_fp8(model) == (8, 6)
    assert passed(model, next(batches()))[0] > 0


def test_a_run_learns_with_it_and_says_so(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = {}
    for name, overrides in (("16 bits", ("training.kernels=fused",)), ("8 bits", ("training.fp8=true",))):
        keys = ("regime=lora", "regime.rank=4", "training.precision=bf16_amp", "training.attention=varlen", "training.max_steps=8", "optim.lr=0.02")
        run = tiny.tiny_run("sft", *keys, *overrides)
        assert run.training.kernels == "fused"
        trainer = tiny.stage_trainer(run, tmp_path / name, tiny.rows_for("sft"))
        trainer.train()
        losses[name] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert "kernels of frozen matrices: products in fp8 of 14, in 16 bits of 0" in capsys.readouterr().out
    assert losses["8 bits"] != losses["16 bits"]
    assert losses["8 bits"] == pytest.approx(losses["16 bits"], rel=0.02)
    assert losses["8 bits"][-1] < losses["8 bits"][0]
