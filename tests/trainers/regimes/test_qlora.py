"""What is quantised, and what is not."""

from dataclasses import replace
from pathlib import Path

import bitsandbytes
import pytest
import torch
from bitsandbytes.autograd._functions import MatMul8bitLt, MatmulLtState
from hqq.core.quantize import HQQLinear
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from launcher.composition.compose import compose
from trainers.model.prepared import PreparedModel
from trainers.regimes import prepare_model
from trainers.regimes.hqq import quantise_2bit
from trainers.regimes.qlora import keep_no_inputs_of_frozen_weights

ORIGINAL_FORWARD = MatMul8bitLt.forward  # taken before any test loads 8 bits
LAYERS = {8: bitsandbytes.nn.Linear8bitLt, 4: bitsandbytes.nn.Linear4bit, 2: HQQLinear}
UNTIED = ["model=demo", "data=demo", "model.architecture.tie_word_embeddings=false"]


def prepared(folder: Path, *overrides: str) -> PreparedModel:
    return prepare_model(compose([*UNTIED, "regime=qlora", *overrides]), AutoModelForCausalLM, folder / "base")


def random_llama() -> PreTrainedModel:
    return prepare_model(compose([*UNTIED, "regime=full"]), AutoModelForCausalLM, Path("unused")).model


@pytest.mark.parametrize("bits", LAYERS)
def test_every_linear_layer_but_the_head_is_quantised(bits: int, tmp_path: Path) -> None:
    made = prepared(tmp_path, f"regime.bits={bits}")
    quantised = {name for name, module in made.model.named_modules() if isinstance(module, LAYERS[bits])}
    assert len(quantised) == 2 * 7
    assert type(made.model.lm_head) is nn.Linear
    assert made.peft_config is not None
    assert set(made.peft_config.target_modules) == quantised


@pytest.mark.parametrize(("double", "precision", "dtype"), [(True, "bf16_amp", torch.bfloat16), (False, "fp32", torch.float32)])
def test_four_bits_follow_the_settings(double: bool, precision: str, dtype: torch.dtype, tmp_path: Path) -> None:
    made = prepared(tmp_path, f"regime.double_quant={double}", f"training.precision={precision}")
    layer = made.model.model.layers[0].mlp.up_proj
    assert (layer.weight.quant_state.quant_type, layer.weight.quant_state.nested) == ("nf4", double)
    assert (layer.compute_dtype, layer.weight.dtype) == (dtype, dtype)
    # 128 x 352 weights of half a byte, stored as numbers of 2 or 4 bytes.
    assert layer.weight.numel() * layer.weight.element_size() == 128 * 352 // 2


def test_other_numbers_of_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"regime\.bits=3 .* 8 or 4 .* or 2"):
        prepared(tmp_path, "regime.bits=3")


def test_two_bits_take_a_quarter_of_a_byte_and_stay_near_the_weights() -> None:
    model = random_llama()
    weight = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    layer = quantise_2bit(model, torch.float32, "cpu").model.layers[0].mlp.up_proj
    assert layer.W_q.numel() * layer.W_q.element_size() == 128 * 352 // 4
    # Four levels over the range of 64 normal numbers, about 4.7 sigma: at most half a step, 0.8 sigma, and far less on average.
    assert (layer.dequantize() - weight).abs().mean() < 0.5 * weight.std()


def test_two_bits_are_the_same_each_time() -> None:
    ours, theirs = (quantise_2bit(random_llama(), torch.float32, "cpu").model.layers[1].mlp.down_proj for _ in range(2))
    assert torch.equal(ours.dequantize(), theirs.dequantize())


def test_two_bits_refuse_a_layer_that_is_no_whole_number_of_groups(tmp_path: Path) -> None:
    run = compose([*UNTIED, "regime=qlora", "regime.bits=2"])
    odd = {**run.model.architecture, "hidden_size": 36, "intermediate_size": 30, "num_attention_heads": 2, "num_key_value_heads": 1}
    with pytest.raises(ValueError, match=r"regime\.bits=2: layers\.0\..* not a multiple of 64"):
        prepare_model(replace(run, model=replace(run.model, architecture=odd)), AutoModelForCausalLM, tmp_path / "base")


def test_two_bits_refuse_a_model_without_linear_layers(tmp_path: Path) -> None:
    run = compose([*UNTIED, "regime=qlora", "regime.bits=2"])
    gpt2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 1, "n_head": 2, "vocab_size": 64}
    with pytest.raises(ValueError, match=r"regime\.bits=2: GPT2LMHeadModel has no nn\.Linear"):
        prepare_model(replace(run, model=replace(run.model, architecture=gpt2)), AutoModelForCausalLM, tmp_path / "base")


def test_eight_bits_keep_no_inputs_of_frozen_weights_and_give_the_same_gradient() -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(16, 32, dtype=torch.float16), torch.randn(4, 32, dtype=torch.float16)

    def gradient() -> tuple[torch.Tensor, list[object]]:
        state = MatmulLtState()
        state.threshold, state.has_fp16_weights = 6.0, False
        state.CB, state.SCB, _ = bitsandbytes.functional.int8_vectorwise_quant(weight)
        leaf = inputs.clone().requires_grad_()
        output = MatMul8bitLt.apply(leaf, state.CB, None, None, state)
        kept = [tensor for tensor in output.grad_fn.tensors if tensor is not None]
        output.sum().backward()
        return leaf.grad, kept

    MatMul8bitLt.forward = staticmethod(ORIGINAL_FORWARD)
    before, kept_before = gradient()
    keep_no_inputs_of_frozen_weights()
    after, kept_after = gradient()

    assert kept_before != []
    assert kept_after == []
    assert torch.equal(before, after)
