"""A base that is dequantised once trains as the quantised one does."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from conf.schema import Run
from launcher.composition.compose import compose
from trainers.kernels.lora import fuse_adapters
from trainers.regimes import prepare_model, with_adapter
from trainers.regimes.dequantised import dequantised_weight, is_quantised, with_plain_layers

STEPS = 5


def run_of(bits: int, precision: str, *overrides: str) -> Run:
    return compose(["model=demo", "data=demo", "regime=qlora", f"regime.bits={bits}", f"training.precision={precision}", *overrides])


def base_of(run: Run, folder: Path) -> PreTrainedModel:
    return prepare_model(run, AutoModelForCausalLM, folder / "base").model


@pytest.mark.parametrize(("bits", "precision"), [(4, "bf16_amp"), (4, "fp32"), (2, "bf16_amp")])
def test_every_quantised_layer_becomes_a_frozen_plain_one_of_the_same_values(bits: int, precision: str, tmp_path: Path) -> None:
    packed = base_of(run_of(bits, precision), tmp_path)
    plain = base_of(run_of(bits, precision, "regime.dequantised=true"), tmp_path)
    layers = {name: module for name, module in packed.named_modules() if is_quantised(module)}
    assert len(layers) == 2 * 7
    for name, layer in layers.items():
        found = plain.get_submodule(name)
        assert type(found) is nn.Linear
        assert found.weight.dtype == (torch.float32 if precision == "fp32" else torch.bfloat16)
        assert not found.weight.requires_grad
        assert torch.equal(found.weight, dequantised_weight(layer))
    assert not any(is_quantised(module) for module in plain.modules())
    assert not getattr(plain, "is_quantized", False)  # or transformers and accelerate would treat it as one that cannot be moved
    assert not hasattr(plain.config, "quantization_config")


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_each_packed_layer_goes_when_its_copy_is_there(bits: int, tmp_path: Path) -> None:
    """Without waiting for Python's search for circles: 8B of packed weights are 3.6 GB beside the copy."""
    base = base_of(run_of(bits, "bf16_amp"), tmp_path)
    packed = [weakref.ref(weight.untyped_storage()) for module in base.modules() if is_quantised(module) for weight in module.parameters()]
    assert len(packed) == 2 * 7
    gc.collect()
    gc.disable()
    try:
        with_plain_layers(base, torch.bfloat16)
        assert [found() for found in packed] == [None] * len(packed)
    finally:
        gc.enable()


def batches() -> Iterator[Tensor]:
    draw = torch.Generator().manual_seed(4)
    while True:
        yield torch.randint(3, 250, (2, 24), generator=draw)


def trained(run: Run, folder: Path, fused: bool) -> tuple[list[float], dict[str, Tensor]]:
    """The loss of each step, and the adapter after them."""
    model = with_adapter(prepare_model(run, AutoModelForCausalLM, folder / "base"), run).train()
    if fused:
        assert fuse_adapters(model) == {}
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer, losses = torch.optim.AdamW(learning.values(), lr=0.01), []
    for _, tokens in zip(range(STEPS), batches(), strict=False):
        with torch.autocast("cpu", torch.bfloat16) if run.training.precision == "bf16_amp" else nullcontext():
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, {name: weight.detach().clone() for name, weight in learning.items()}


@pytest.mark.parametrize("precision", ["bf16_amp", "fp32"])
def test_losses_and_adapter_are_bit_for_bit_those_of_the_quantised_base(precision: str, tmp_path: Path) -> None:
    """With fused kernels, which dequantise at every use otherwise."""
    losses, adapter = trained(run_of(4, precision), tmp_path, fused=True)
    found, learned = trained(run_of(4, precision, "regime.dequantised=true"), tmp_path, fused=True)
    assert found == losses
    assert losses[-1] < losses[0]
    assert learned.keys() == adapter.keys()
    assert all(torch.equal(learned[name], adapter[name]) for name in adapter)


@pytest.mark.parametrize("bits", [4, 2])
def test_losses_of_plain_kernels_are_those_of_the_quantised_base(bits: int, tmp_path: Path) -> None:
    """In fp32, where rounding between base and adapter plays no part: to 1e-5."""
    losses, _ = trained(run_of(bits, "fp32"), tmp_path, fused=False)
    found, _ = trained(run_of(bits, "fp32", "regime.dequantised=true"), tmp_path, fused=False)
    assert found == pytest.approx(losses, rel=1e-5)
