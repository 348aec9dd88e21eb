"""What liger's kernels leave behind in a process, by a stand-in for liger 0.8.5: models that are built later, on a CPU, are transformers' own."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.models.llama import modeling_llama

from trainers.kernels.layers import fuse_layers


def on_gpus_alone(*_: Any, **__: Any) -> Any:
    raise ValueError("Pointer argument cannot be accessed from Triton (cpu tensor?)")


class Replaced(torch.nn.Module):
    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return on_gpus_alone(states)


def replace(model: Any, rope: bool = True, rms_norm: bool = True, swiglu: bool = True, fused_linear_cross_entropy: bool = True) -> None:
    """liger_kernel/transformers/monkey_patch.py, apply_liger_kernel_to_llama: names of the module, and the layers of the model itself."""
    assert (rope, rms_norm, swiglu, fused_linear_cross_entropy) == (True, True, True, False)
    modeling_llama.apply_rotary_pos_emb = on_gpus_alone
    modeling_llama.LlamaRMSNorm = modeling_llama.LlamaMLP = Replaced
    model.model.norm.forward = on_gpus_alone


def small_llama() -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    patches = ModuleType("liger_kernel.transformers.monkey_patch")
    patches.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": replace}  # type: ignore[attr-defined]
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, patches.__name__, patches)
    for name in ("apply_rotary_pos_emb", "LlamaRMSNorm", "LlamaMLP"):
        monkeypatch.setattr(modeling_llama, name, getattr(modeling_llama, name))


@pytest.mark.usefixtures("stand_in")
def test_a_model_that_is_built_after_a_fused_one_is_transformers_own() -> None:
    tokens = torch.arange(8)[None]
    expected = small_llama()(tokens).logits
    for _ in range(2):
        fused = small_llama()
        assert fuse_layers(fused)
        with pytest.raises(ValueError, match="Triton"):
            fused(tokens)

        later = small_llama()
        assert type(later.model.norm).__name__ == "LlamaRMSNorm"
        assert torch.equal(later(tokens).logits, expected)
