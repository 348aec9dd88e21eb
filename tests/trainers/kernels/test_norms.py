"""Norms whose weights do not learn, by torch's own kernel: transformers' numbers, and where it does not reach the forward pass that was there."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from trainers.kernels.norms import FrozenNorm, spare_frozen_norms

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


def model_of(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES, pad_token_id=0, head_dim=8), dtype=dtype)
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    return model


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_frozen_norm_has_transformers_output_and_gradient(family: str) -> None:
    model = model_of(family).requires_grad_(False)
    norm = model.model.norm
    states, weights = (torch.randn(2, 5, 32) for _ in range(2))

    def passed() -> tuple[torch.Tensor, torch.Tensor]:
        given = states.clone().requires_grad_()
        output = norm(given)
        (output * weights).sum().backward()
        assert given.grad is not None
        return output.detach(), given.grad

    plain = passed()
    assert spare_frozen_norms(model) == 5, "two of each layer and the last one; those of single heads stay"
    assert isinstance(norm.forward, FrozenNorm)
    for found, expected in zip(passed(), plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_what_learns_is_of_another_dtype_or_adds_one_stays() -> None:
    model = model_of("llama")
    assert spare_frozen_norms(model) == 0
    model.requires_grad_(False)
    assert spare_frozen_norms(model) == 5
    norm, called = model.model.norm, []
    norm.forward.plain = called.append
    norm(torch.ones(1, 32, dtype=torch.bfloat16))
    assert len(called) == 1
    norm.weight.requires_grad_(True)
    norm(torch.ones(1, 32))
    assert len(called) == 2
    assert spare_frozen_norms(model_of("gemma3_text").requires_grad_(False)) == 0
