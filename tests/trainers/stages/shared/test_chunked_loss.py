"""The loss in chunks is the plain one: value and gradients, in every family that may choose it."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, set_seed

from conf.constants import LOSS_CHUNK
from launcher.facts.model.families import FAMILIES
from tests.trainers.small_models import SIZES as SMALL
from trainers.stages.shared.chunked_loss import IGNORED, chunked_cross_entropy, compute_loss_in_chunks

HEAD_ALONE = [name for name, family in FAMILIES.items() if family.traits.head_alone]
SIZES = SMALL | {"max_position_embeddings": 1024}
OF_FAMILY: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gemma3_text": SIZES | {"head_dim": 8},
    "qwen3": SIZES | {"head_dim": 8},
    "deepseek_v3": SIZES
    | {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
    | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1},
    "mixtral": SIZES | {"num_local_experts": 4},
    "qwen2_moe": SIZES | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "qwen3_moe": SIZES | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}


def model_of(family: str, **overrides: Any) -> PreTrainedModel:
    set_seed(1)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **OF_FAMILY.get(family, SIZES) | overrides))
    return model.train()


def batch() -> dict[str, Tensor]:
    """Two samples of 600 tokens, more than two chunks together; half of the first and the padded end of the second are not learned."""
    set_seed(2)
    tokens = torch.randint(1, 96, (2, 600))
    labels, mask = tokens.clone(), torch.ones_like(tokens)
    labels[0, :300] = IGNORED
    labels[1, 550:] = IGNORED
    mask[1, 550:] = 0
    return {"input_ids": tokens, "labels": labels, "attention_mask": mask}


def loss_and_gradients(model: nn.Module, **more: Any) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(**batch(), **more).loss
    loss.backward()
    return loss.detach(), {name: weight.grad.float() for name, weight in model.named_parameters() if weight.grad is not None}


def both_ways(model: nn.Module, base: PreTrainedModel, **more: Any) -> tuple[tuple[Tensor, dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]:
    plain = loss_and_gradients(model, **more)
    compute_loss_in_chunks(base)
    return plain, loss_and_gradients(model, **more)


@pytest.mark.parametrize("family", HEAD_ALONE)
def test_loss_and_every_gradient_are_those_of_the_plain_loss(family: str) -> None:
    model = model_of(family)
    (plain, gradients), (chunked, others) = both_ways(model, model)
    torch.testing.assert_close(chunked, plain, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(others, gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_learns_as_embedding_and_head(tied: bool) -> None:
    model = model_of("llama", tie_word_embeddings=tied)
    (_, gradients), (_, others) = both_ways(model, model)
    assert ("lm_head.weight" in others) == (not tied)
    torch.testing.assert_close(others, gradients, rtol=1e-5, atol=1e-6)


def test_adapters_learn_as_with_the_plain_loss_on_the_head_too() -> None:
    base = model_of("llama")
    adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj", "lm_head"], init_lora_weights=False))
    (plain, gradients), (chunked, others) = both_ways(adapted, base)
    assert any("lm_head.lora_A" in name for name in others)
    torch.testing.assert_close(chunked, plain, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(others, gradients, rtol=1e-5, atol=1e-6)


def test_the_sum_is_divided_by_the_items_of_the_whole_accumulated_batch() -> None:
    model = model_of("llama")
    (plain, _), (chunked, _) = both_ways(model, model, num_items_in_batch=torch.tensor(5000))
    torch.testing.assert_close(chunked, plain, rtol=1e-6, atol=0)


def test_bf16_differs_by_the_rounding_of_its_sums() -> None:
    """A gradient summed over chunks is rounded once per chunk: 2^-8 of its size for each of three, on the norm of all."""
    model = model_of("llama").to(torch.bfloat16)
    (plain, gradients), (chunked, others) = both_ways(model, model)
    torch.testing.assert_close(chunked, plain.float(), rtol=2**-8, atol=0)
    for name, gradient in gradients.items():
        assert (others[name] - gradient).norm() <= 3 * 2**-8 * gradient.norm(), name


def test_under_autocast_fp32_weights_get_fp32_gradients() -> None:
    model = model_of("llama")
    with torch.autocast("cpu", torch.bfloat16):
        (plain, gradients), (chunked, others) = both_ways(model, model)
    torch.testing.assert_close(chunked, plain, rtol=2**-8, atol=0)
    for name, gradient in gradients.items():
        assert (others[name] - gradient).norm() <= 3 * 2**-8 * gradient.norm(), name


def test_checkpointed_layers_change_nothing() -> None:
    model = model_of("llama")
    plain = loss_and_gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    compute_loss_in_chunks(model)
    torch.testing.assert_close(loss_and_gradients(model), plain, rtol=1e-5, atol=1e-6)


def test_without_labels_the_logits_are_the_models_own() -> None:
    model = model_of("llama").eval()
    tokens = batch()["input_ids"][:, :8]
    plain = model(tokens).logits
    compute_loss_in_chunks(model)
    torch.testing.assert_close(model(tokens).logits, plain)


def test_no_tensor_holds_the_logits_of_more_than_one_chunk() -> None:
    seen: list[int] = []
    head = nn.Linear(8, 64)
    head.register_forward_hook(lambda module, inputs, output: seen.append(output.numel()))
    hidden = torch.randn(3, LOSS_CHUNK, 8, requires_grad=True)
    chunked_cross_entropy(head, hidden, torch.randint(0, 64, (3, LOSS_CHUNK)), None).backward()
    assert seen == [LOSS_CHUNK * 64] * 6  # three chunks, each computed again for its gradient


@pytest.mark.parametrize("length", [40, 600, 1500])
def test_where_ranks_gather_the_head_together_they_call_it_equally_often_whatever_the_length(length: int) -> None:
    calls: list[int] = []
    model = model_of("llama", max_position_embeddings=1536)
    tokens = torch.randint(1, 96, (2, length))
    plain = model(tokens, labels=tokens).loss
    model.get_output_embeddings().register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    compute_loss_in_chunks(model, longest=1536)
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    torch.testing.assert_close(loss, plain)
    assert len(calls) == 2 * 6  # 2 x 1,536 tokens are six chunks of 512, each computed again for its gradient
    assert sum(calls) == 2 * 2 * length
    assert max(calls) <= LOSS_CHUNK
