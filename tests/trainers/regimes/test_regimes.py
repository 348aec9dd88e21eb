"""What holds for every regime: dtypes by precision, the exact weights that learn, repeatability, checkpointed activations."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from conf.schema import Run
from tests.described import composed
from trainers.regimes import prepare_model, with_adapter

FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
TOKENS = torch.arange(3, 35).reshape(2, 16)
REGIMES = {
    "full": ["regime=full"],
    "freeze": ["regime=freeze", "regime.layers=1"],
    "lora": ["regime=lora"],
    "dora": ["regime=lora", "regime.dora=true"],
    "8 bits": ["regime=qlora", "regime.bits=8"],
    "4 bits": ["regime=qlora", "regime.bits=4"],
    "2 bits": ["regime=qlora", "regime.bits=2"],
}
# precision: (what learns, what is frozen); the frozen weights of a quantised layer are stored as below.
DTYPES = {"bf16_amp": (FP32, BF16), "fp16_amp": (FP32, FP16), "bf16": (BF16, BF16), "fp32": (FP32, FP32)}
STORAGE = {"8 bits": torch.int8, "2 bits": torch.uint8}  # 4 bits: the dtype of the other frozen weights
PROJECTIONS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
NORMS = ["input_layernorm", "post_attention_layernorm"]


def tiny(*overrides: str) -> Run:
    return composed("model=demo", "data=demo", "model.architecture.hidden_size=64", "model.architecture.intermediate_size=128", *overrides)


def ready(run: Run, folder: Path) -> nn.Module:
    return with_adapter(prepare_model(run, AutoModelForCausalLM, folder / "base"), run)


def gradients(model: nn.Module, precision: str) -> dict[str, torch.Tensor]:
    model.train()
    model.zero_grad()
    with torch.autocast("cpu", BF16, enabled=precision == "bf16_amp"):
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("regime", REGIMES)
def test_dtypes_are_those_of_the_precision(regime: str, precision: str, tmp_path: Path) -> None:
    model = ready(tiny(*REGIMES[regime], f"training.precision={precision}"), tmp_path)
    trained, frozen = DTYPES[precision]
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {trained}
    expected = set() if regime == "full" else {frozen, STORAGE.get(regime, frozen)}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == expected


@pytest.mark.parametrize("regime", REGIMES)
def test_exactly_the_expected_weights_learn(regime: str, tmp_path: Path) -> None:
    layer = [f"{name}.weight" for name in PROJECTIONS + NORMS]
    adapters = [f"{name}.{part}.default.weight" for name in PROJECTIONS for part in ("lora_A", "lora_B")]
    magnitudes = [f"{name}.lora_magnitude_vector.default.weight" for name in PROJECTIONS] if regime == "dora" else []
    expected = {
        "full": ["model.embed_tokens.weight", "model.norm.weight", *(f"model.layers.{index}.{name}" for index in (0, 1) for name in layer)],
        "freeze": [f"model.layers.1.{name}" for name in layer],
    }.get(regime, [f"base_model.model.model.layers.{index}.{name}" for index in (0, 1) for name in adapters + magnitudes])
    model = ready(tiny(*REGIMES[regime]), tmp_path)
    assert sorted(name for name, p in model.named_parameters() if p.requires_grad) == sorted(expected)


@pytest.mark.parametrize("precision", ["bf16_amp", "fp32"])
@pytest.mark.parametrize("regime", REGIMES)
def test_gradients_reach_every_weight_that_learns_with_and_without_kept_activations(regime: str, precision: str, tmp_path: Path) -> None:
    model = ready(tiny(*REGIMES[regime], f"training.precision={precision}"), tmp_path)
    kept = gradients(model, precision)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    recomputed = gradients(model, precision)
    assert kept.keys() == recomputed.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(torch.equal(kept[name], recomputed[name]) for name in kept)
    assert any(gradient.abs().max() > 0 for gradient in kept.values())


@pytest.mark.parametrize("regime", ["8 bits", "4 bits", "2 bits"])
def test_an_evaluation_changes_no_gradient_of_a_quantised_model(regime: str, tmp_path: Path) -> None:
    model = ready(tiny(*REGIMES[regime]), tmp_path)
    before = gradients(model, "bf16_amp")
    model.eval()
    with torch.no_grad():
        model(input_ids=TOKENS)
    after = gradients(model, "bf16_amp")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_adapters_depend_on_the_seed_and_on_nothing_before(tmp_path: Path) -> None:
    def first_adapter(*overrides: str) -> torch.Tensor:
        torch.rand(3)
        return ready(tiny("regime=lora", *overrides), tmp_path).state_dict()["base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight"]

    assert torch.equal(first_adapter(), first_adapter())
    assert not torch.equal(first_adapter(), first_adapter("training.seed=43"))
