"""The fused loss is the plain one: value and every gradient, of a head that learns, is tied or is frozen, over several chunks."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, set_seed

from conf.kernels import FUSED_FAMILIES
from tests.trainers.small_models import SIZES
from trainers.kernels import loss as fused_loss
from trainers.kernels.loss import compute_loss_fused
from trainers.stages.shared.chunked_loss import IGNORED

HEADS = {"qwen3": {"head_dim": 8}, "gemma3_text": {"head_dim": 8}}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven tokens of 96 logits: the 48 tokens below make seven chunks, the last of six."""
    monkeypatch.setattr(fused_loss, "LOGITS", 7 * 96 + 5)


def model_of(family: str, **overrides: Any) -> PreTrainedModel:
    set_seed(1)
    config = AutoConfig.for_model(family, **SIZES | HEADS.get(family, {}) | overrides)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.train()


def batch() -> dict[str, Tensor]:
    """Some tokens are not learned, among them every one of a chunk."""
    set_seed(2)
    tokens = torch.randint(1, 96, (2, 24))
    labels = tokens.clone()
    labels[0, :10] = IGNORED
    labels[1, 20:] = IGNORED
    return {"input_ids": tokens, "labels": labels}


def loss_and_gradients(model: nn.Module, autocast: bool = False, **more: Any) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        loss = model(**batch(), **more).loss
    (3 * loss).backward()  # as accelerate scales a loss
    return loss.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("items", [None, 17])
@pytest.mark.parametrize("family", sorted(FUSED_FAMILIES))
def test_loss_and_every_gradient_are_those_of_the_plain_loss(family: str, items: int | None) -> None:
    model, more = model_of(family), {} if items is None else {"num_items_in_batch": items}
    plain = loss_and_gradients(model, **more)
    compute_loss_fused(model)
    torch.testing.assert_close(loss_and_gradients(model, **more), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_adds_its_gradient_to_the_embedding_s(tied: bool) -> None:
    model = model_of("llama", tie_word_embeddings=tied)
    plain = loss_and_gradients(model)
    compute_loss_fused(model)
    torch.testing.assert_close(loss_and_gradients(model), plain, rtol=1e-5, atol=1e-6)


def test_a_frozen_head_gets_none() -> None:
    base = model_of("llama")
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    plain = loss_and_gradients(model)
    compute_loss_fused(base)
    found = loss_and_gradients(model)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)
    assert not any("lm_head" in name for name in found[1])


def test_under_autocast_the_head_s_gradient_is_fp32_and_as_near_as_the_plain_one() -> None:
    """The plain one rounds it to bf16 on its way: it may not be nearer than the fused one."""
    model = model_of("llama")
    exact = loss_and_gradients(model)[1]["lm_head.weight"].clone()
    plain_loss, plain = loss_and_gradients(model, autocast=True)
    plain_head = plain["lm_head.weight"].clone()
    compute_loss_fused(model)
    loss, found = loss_and_gradients(model, autocast=True)
    assert loss == pytest.approx(plain_loss, rel=2**-8)
    assert found["lm_head.weight"].dtype == torch.float32
    assert 0 < (found["lm_head.weight"] - exact).norm() < 1.5 * (plain_head - exact).norm()


def test_an_evaluation_makes_no_gradients() -> None:
    model = model_of("llama").eval()
    with torch.no_grad():
        plain = model(**batch()).loss
        compute_loss_fused(model)
        torch.testing.assert_close(model(**batch()).loss, plain, rtol=1e-6, atol=1e-6)
        assert model(input_ids=batch()["input_ids"]).logits.shape == (2, 24, 96)
