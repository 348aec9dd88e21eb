"""The fused adapters are PEFT's: outputs, gradients and training, in every family and form that they cover; the rest stays PEFT's own."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from itertools import cycle
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt, Params4bit
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, set_seed

from tests.trainers.small_models import WIDE
from trainers.kernels.lora import FusedForward, fuse_adapters

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", WIDE),
    "biases": ("qwen2", WIDE),
    "one matrix for three": ("phi3", WIDE),
    "norms of queries": ("qwen3", WIDE | {"head_dim": 16}),
    "transposed": ("gpt2", {"vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "latent": (
        "deepseek_v3",
        WIDE
        | {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
        | {"first_k_dense_replace": 2, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2},
    ),
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "rank 4": {"r": 4, "lora_alpha": 8},
    "rank 3, alpha 5": {"r": 3, "lora_alpha": 5},
    "rsLoRA": {"r": 4, "lora_alpha": 8, "use_rslora": True},
    "other ranks and scales in one group": {"r": 4, "lora_alpha": 8, "rank_pattern": {"k_proj": 2, "up_proj": 8}, "alpha_pattern": {"v_proj": 3}},
}
STEPS = 10


def base_of(shape: str, dtype: torch.dtype = torch.float32, bits: int | None = None) -> PreTrainedModel:
    family, sizes = MODELS[shape]
    set_seed(1)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).to(dtype)
    with torch.no_grad():  # biases begin at zero
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(std=0.1)
    return model if bits is None else quantised(model, bits, dtype)


def quantised(model: PreTrainedModel, bits: int, dtype: torch.dtype) -> PreTrainedModel:
    """As transformers' loading does it from files."""
    for name, layer in [*model.base_model.named_modules()]:
        if isinstance(layer, nn.Linear):
            model.base_model.set_submodule(name, four_bits(layer, dtype) if bits == 4 else eight_bits(layer))
    return model


def four_bits(layer: nn.Linear, dtype: torch.dtype) -> nn.Module:
    new = Linear4bit(layer.in_features, layer.out_features, bias=layer.bias is not None, compute_dtype=dtype, quant_type="nf4", quant_storage=dtype)
    new.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", quant_storage=dtype, compress_statistics=True).to("cpu")
    new.support_avx512bf16_for_cpu = False
    if layer.bias is not None:
        new.bias = nn.Parameter(layer.bias.data, requires_grad=False)
    return new


def eight_bits(layer: nn.Linear) -> nn.Module:
    new = Linear8bitLt(layer.in_features, layer.out_features, bias=layer.bias is not None, has_fp16_weights=False, threshold=6.0)
    new.load_state_dict({"weight": layer.weight.data} | ({} if layer.bias is None else {"bias": layer.bias.data}))
    return new.to("cpu")


def adapted(base: PreTrainedModel, **config: Any) -> PeftModel:
    set_seed(2)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", **config), autocast_adapter_dtype=False)
    with torch.no_grad():  # B begins at zero, and would hide what A gets
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight.data = weight.data.float()
                if ".lora_B." in name:
                    weight.normal_(std=0.05)
    return model.train()


def fused(model: PeftModel) -> PeftModel:
    """A copy of the model with every layer fused."""
    copy = deepcopy(model)
    assert fuse_adapters(copy) == {}
    return copy


def batches() -> Iterator[Tensor]:
    set_seed(3)
    return cycle(torch.randint(1, 96, (3, 2, 24)))


def loss_of(model: nn.Module, tokens: Tensor, autocast: bool = False) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        loss: Tensor = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    return loss


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def passed(model: nn.Module, autocast: bool = False, seed: int = 4) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    tokens = next(batches())
    set_seed(seed)
    loss = loss_of(model, tokens, autocast)
    loss.backward()
    return loss.detach(), gradients(model)


def equal_to_1e_6(model: PeftModel, copy: PeftModel) -> None:
    """Loss, and every gradient by its norm against the largest: single elements are sums in another order."""
    equal(passed(model), passed(copy), 1e-6)


def equal(expected: tuple[Tensor, dict[str, Tensor]], found: tuple[Tensor, dict[str, Tensor]], share: float) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=share, atol=0)
    assert found[1].keys() == expected[1].keys()
    norms = {name: gradient.norm() for name, gradient in expected[1].items()}
    assert min(norms.values()) > 0
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).norm() <= share * max(norms.values()), name


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("shape", MODELS)
def test_loss_and_every_gradient_are_those_of_peft(shape: str, adapter: str) -> None:
    model = adapted(base_of(shape), **ADAPTERS[adapter])
    equal_to_1e_6(model, fused(model))
    exact = model.double()
    equal(passed(exact), passed(fused(exact)), 1e-13)


@pytest.mark.parametrize("bits", [8, 4])
def test_on_quantised_bases_too(bits: int) -> None:
    model = adapted(base_of("biases", bits=bits), r=4, lora_alpha=8)
    equal_to_1e_6(model, fused(model))


@pytest.mark.parametrize("shape", ["llama", "transposed"])
def test_dropout_drops_the_same_elements_from_the_same_seed(shape: str) -> None:
    model = adapted(base_of(shape), r=4, lora_alpha=8, lora_dropout=0.25)
    copy = fused(model)
    equal_to_1e_6(model, copy)
    assert not torch.equal(passed(copy)[0], passed(copy, seed=5)[0])
    copy.eval()
    model.eval()
    equal_to_1e_6(model, copy)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("bits", [None, 4])
def test_recomputed_layers_give_the_same(bits: int | None, dropout: float) -> None:
    model = adapted(base_of("llama", bits=bits), r=4, lora_alpha=8, lora_dropout=dropout)
    copy = fused(model)
    kept = passed(copy)
    for each in (model, copy):
        each.gradient_checkpointing_enable({"use_reentrant": False})
        each.enable_input_require_grads()
    equal_to_1e_6(model, copy)
    torch.testing.assert_close(passed(copy), kept, rtol=1e-6, atol=1e-9)


def trained(model: PeftModel, make: Callable[..., torch.optim.Optimizer], accumulation: int = 1) -> list[float]:
    optimizer, losses, stream = make([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2), [], batches()
    for _ in range(STEPS):
        parts = [loss_of(model, next(stream)) / accumulation for _ in range(accumulation)]  # all forward passes before the first backward pass
        torch.stack(parts).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(sum(part.item() for part in parts))
    return losses


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("bits", [None, 8, 4])
def test_ten_steps_of_training_end_where_those_of_peft_end(bits: int | None, accumulation: int) -> None:
    """The fused AdamW changes parameters without a sign of it: copies of the adapters that were not made anew would show here."""

    def fused_adamw(weights: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(weights, lr=lr, fused=True)

    model = adapted(base_of("llama", bits=bits), r=4, lora_alpha=8)
    copy = fused(model)
    expected = trained(model, fused_adamw, accumulation)
    assert trained(copy, fused_adamw, accumulation) == pytest.approx(expected, rel=1e-5)
    assert expected[-1] < expected[0] - 0.01


def test_sixteen_bits_are_as_near_to_fp32_as_those_of_peft() -> None:
    """Under autocast with a bf16 base and fp32 adapters, as training.precision=bf16_amp has them: each differs from fp32 by its rounding,
    and the fused one may differ a quarter more than PEFT's."""
    exact = passed(adapted(base_of("llama"), r=4, lora_alpha=8))
    model = adapted(base_of("llama", torch.bfloat16), r=4, lora_alpha=8)
    copy = fused(model)
    (loss, plain), (other, found) = passed(model, autocast=True), passed(copy, autocast=True)
    assert other == pytest.approx(loss, rel=2**-8)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}

    def distance(those: dict[str, Tensor]) -> float:
        return torch.stack([(those[name] - gradient).norm() for name, gradient in exact[1].items()]).norm().item()

    assert 0 < distance(found) < 1.25 * distance(plain)


def test_what_is_saved_has_peft_s_names_and_values_and_peft_reads_it(tmp_path: Any) -> None:
    model = adapted(base_of("llama"), r=4, lora_alpha=8)
    copy = fused(model)
    trained(copy, torch.optim.SGD)
    assert copy.state_dict().keys() == model.state_dict().keys()
    copy.save_pretrained(tmp_path)
    read = PeftModel.from_pretrained(base_of("llama"), str(tmp_path)).eval()
    tokens = next(batches())
    with torch.enable_grad():
        logits = copy.eval()(input_ids=tokens, use_cache=False).logits
    torch.testing.assert_close(read(input_ids=tokens, use_cache=False).logits, logits, rtol=1e-5, atol=1e-6)


def test_saved_for_the_backward_pass_is_one_input_and_one_inner_product_of_a_group() -> None:
    """32 tokens of width 64 and three adapters of rank 4: 32 x 64 and 32 x 12 elements of four bytes, and nothing of the outputs."""
    copy = fused(adapted(base_of("llama"), r=4, lora_alpha=8))
    attention = copy.base_model.model.model.layers[0].self_attn
    next(module for module in copy.modules() if type(module).__name__ == "LlamaModel")(input_ids=torch.ones(1, 1, dtype=torch.long))  # the copies
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    hidden = torch.randn(1, 32, 64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = [attention.q_proj(hidden), attention.k_proj(hidden), attention.v_proj(hidden)]
    assert [tuple(output.shape) for output in outputs] == [(1, 32, 64), (1, 32, 32), (1, 32, 32)]
    assert [tuple(tensor.shape) for tensor in saved] == [(32, 64), (32, 12)]
    assert saved[0].data_ptr() == hidden.data_ptr()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"use_dora": True}, "is PEFT's variant DoraLinearVariant"),
        ({"lora_bias": True}, "has a bias in its adapter, or another dropout"),
    ],
)
def test_what_is_not_covered_stays_peft_s_own_and_is_told(config: dict[str, Any], reason: str) -> None:
    model = adapted(base_of("llama"), r=4, lora_alpha=8, **config)
    copy = deepcopy(model)
    assert fuse_adapters(copy) == {reason: 14}  # seven matrices in each of two layers
    assert torch.equal(passed(copy)[0], passed(model)[0])


def test_two_bits_are_not_covered() -> None:
    from trainers.regimes.hqq import quantise_2bit

    base = quantise_2bit(base_of("llama"), torch.float32, "cpu")
    names = [name for name, module in base.base_model.named_modules() if type(module).__name__ == "HQQLinear"]
    model = get_peft_model(base, LoraConfig(r=4, target_modules=[f"model.{name}" for name in names]), autocast_adapter_dtype=False)
    assert fuse_adapters(model) == {"lies on HQQLinear": 14}


def test_a_switched_off_adapter_and_a_pass_without_gradients_take_peft_s_own_way() -> None:
    model = adapted(base_of("llama"), r=4, lora_alpha=8)
    copy, tokens = fused(model), next(batches())
    with copy.disable_adapter(), model.disable_adapter():
        assert torch.equal(loss_of(copy, tokens), loss_of(model, tokens))
    with torch.no_grad():
        assert torch.equal(loss_of(copy, tokens), loss_of(model, tokens))
    assert isinstance(copy.base_model.model.model.layers[0].self_attn.q_proj.forward, FusedForward)
    copy.merge_adapter()
    model.merge_adapter()
    assert torch.equal(loss_of(copy, tokens), loss_of(model, tokens))
