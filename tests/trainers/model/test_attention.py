"""Packed rows under varlen are their samples alone: losses, gradients, and nothing that one sample could learn of another."""

from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, set_seed
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from launcher.composition.compose import compose
from launcher.facts.model.families import FAMILIES
from launcher.rules.attention import WITHOUT_SDPA
from tests.trainers.small_models import OF_FAMILY, SIZES
from trainers.data.rows.collator import build_collator
from trainers.data.rows.packing import PackedRow, packed_row
from trainers.model.attention import Spans, by_kernel, implementation, one_by_one, widened
from trainers.model.tokenizer import byte_tokenizer

COMPARED = [name for name, family in FAMILIES.items() if family.traits.varlen]
RUN = compose(["model=demo", "data=demo", "data.packing=true", "training.precision=bf16_amp", "training.attention=varlen"])
LENGTHS = ((5, 9, 2), (7, 4), (11,))  # of the samples of three rows: the second and the third are padded, to 16 tokens


def model_of(family: str, attention: str = "varlen") -> PreTrainedModel:
    implementation(RUN)
    set_seed(1)
    config = AutoConfig.for_model(family, **OF_FAMILY.get(family, SIZES))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return model.train()


def packed_rows() -> list[PackedRow]:
    set_seed(2)
    samples = [[torch.randint(1, 96, (length,)).tolist() for length in row] for row in LENGTHS]
    return [packed_row([(ids, [-100, *ids[1:]]) for ids in row]) for row in samples]


def batch() -> dict[str, Any]:
    return build_collator(RUN, byte_tokenizer())([{key: [*values] for key, values in row.items()} for row in packed_rows()]) | {"input_ids": tokens()}


def tokens() -> Tensor:
    """Of every row, padded by 0: the padding of the built-in tokenizer lies beyond these vocabularies."""
    return torch.tensor([row["input_ids"] + [0] * (16 - len(row["input_ids"])) for row in packed_rows()])


def samples() -> list[Tensor]:
    return [part for row, lengths in zip(packed_rows(), LENGTHS, strict=True) for part in torch.tensor(row["input_ids"]).split(lengths)]


def learned() -> int:
    return sum(length - 1 for lengths in LENGTHS for length in lengths)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def packed_pass(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(**batch(), num_items_in_batch=learned()).loss
    loss.backward()
    return loss.detach(), gradients(model)


def single_passes(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """Each sample in a row of its own, by transformers' own attention; every sum over tokens is divided by those of all samples."""
    model.zero_grad()
    losses = [model(input_ids=each[None], labels=each[None], use_cache=False, num_items_in_batch=learned()).loss for each in samples()]
    total = torch.stack(losses).sum()
    total.backward()
    return total.detach(), gradients(model)


@pytest.mark.parametrize("family", COMPARED)
def test_packed_rows_have_the_losses_and_gradients_of_their_samples_alone(family: str) -> None:
    packed, alone = packed_pass(model_of(family)), single_passes(model_of(family, "sdpa"))
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=2e-7)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3_text"])
def test_the_masks_of_transformers_give_the_same(family: str) -> None:
    packed = packed_pass(model_of(family))
    torch.testing.assert_close(packed_pass(model_of(family, "eager")), packed, rtol=1e-5, atol=2e-7)


@pytest.mark.parametrize("family", COMPARED)
def test_a_changed_sample_leaves_the_logits_of_the_others_as_they_were_to_the_last_bit(family: str) -> None:
    model, given = model_of(family).eval(), batch()
    changed = given["input_ids"].clone()
    changed[0, 5:14] = 95 - changed[0, 5:14]  # the second of the three samples of the first row
    with torch.no_grad():
        before, after = model(**given).logits, model(**{**given, "input_ids": changed}).logits
    for row, untouched in ((0, slice(0, 5)), (0, slice(14, 16)), (1, slice(0, 16)), (2, slice(0, 16))):
        assert torch.equal(before[row, untouched], after[row, untouched])
    assert not torch.equal(before[0, 5:14], after[0, 5:14])


def test_adapters_under_autocast_and_checkpointing_learn_the_same() -> None:
    """Rounded to bf16, whose products of a row are the same whichever rows stand beside it: 2^-8 of the norm of each gradient."""
    base = {attention: model_of("llama", attention) for attention in ("varlen", "sdpa")}
    adapted = {
        attention: get_peft_model(
            model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
        )
        for attention, model in base.items()
    }
    adapted["sdpa"].load_state_dict(adapted["varlen"].state_dict())
    base["varlen"].gradient_checkpointing_enable({"use_reentrant": False})
    base["varlen"].enable_input_require_grads()
    with torch.autocast("cpu", torch.bfloat16):
        (packed, found), (alone, expected) = packed_pass(adapted["varlen"]), single_passes(adapted["sdpa"])
    torch.testing.assert_close(packed, alone, rtol=2**-8, atol=0)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 4 * 2**-8 * gradient.norm(), name


def test_a_batch_that_brings_no_bounds_is_computed_as_by_sdpa() -> None:
    """Answers that are written while training: padded prompts, then a token at a time from a cache, beyond the window."""
    prompts, mask = torch.randint(1, 96, (2, 6)), torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    written = [
        model_of("mistral", attention).eval().generate(prompts, attention_mask=mask, max_new_tokens=6, do_sample=False)
        for attention in ("varlen", "sdpa")
    ]
    assert torch.equal(*written)
    single = samples()[1][None]
    logits = [model_of("gemma3_text", attention)(input_ids=single, use_cache=False).logits for attention in ("varlen", "sdpa")]
    assert torch.equal(*logits)


def test_dropout_of_attention_weights_is_refused() -> None:
    set_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZES, attention_dropout=0.1), attn_implementation=implementation(RUN))
    with pytest.raises(ValueError, match=r"training.attention=varlen does not support dropout, and the model uses 0.1. Set training.attention=sdpa."):
        model.train()(**batch())


def test_a_window_counts_the_token_itself() -> None:
    """Values 1, 2, 3 under equal scores: a window of 2 takes the mean of each token and the one before."""
    values = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    out = one_by_one(torch.zeros(3, 1, 1), torch.zeros(3, 1, 1), values, 1.0, Spans(torch.tensor([0, 3], dtype=torch.int32), 3, 2))
    assert out.flatten().tolist() == [1.0, 1.5, 2.5]


def test_heads_are_widened_by_zeros() -> None:
    assert widened(torch.ones(1, 1, 2), 4).flatten().tolist() == [1.0, 1.0, 0.0, 0.0]


def test_the_kernel_takes_grouped_heads_of_any_width_and_gives_those_of_the_values() -> None:
    """On no device, where torch computes shapes alone: 4 heads of queries share 2 of keys, 36 is not a multiple of 8."""
    query, key, value = (torch.empty(20, heads, width, device="meta", requires_grad=True) for heads, width in ((4, 36), (2, 36), (2, 32)))
    out = by_kernel(query, key, value, 0.1, Spans(torch.empty(3, dtype=torch.int32, device="meta"), 12, window=4))
    assert out.shape == (20, 4, 32)
    out.sum().backward()
    assert [tensor.grad.shape for tensor in (query, key, value) if tensor.grad is not None] == [(20, 4, 36), (20, 2, 36), (20, 2, 32)]


def test_the_families_without_sdpa_are_those_of_transformers() -> None:
    """The launcher cannot ask transformers, and chose sdpa for them: the ranks ended with an error."""
    found = {name for name, model in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if not getattr(transformers, model)._supports_sdpa}
    assert found - {"gemma2"} == WITHOUT_SDPA
