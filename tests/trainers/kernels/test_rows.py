"""Rows laid end to end are the padded rows: loss and gradients, with accumulation, in every family whose attention was compared."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, set_seed

from conf.schema import Run
from launcher.composition.compose import compose
from launcher.facts.model.families import FAMILIES
from tests.trainers.small_models import OF_FAMILY, SIZES
from trainers.data.rows.collator import build_collator
from trainers.data.rows.tokens import MASKED
from trainers.kernels.rows import filled, joined_batch
from trainers.model.attention import implementation
from trainers.model.tokenizer import byte_tokenizer

COMPARED = [name for name, family in FAMILIES.items() if family.traits.varlen]
CUTOFF = 16
LENGTHS = (5, 16, 2, 9, 1)


def run_of(kernels: str, *overrides: str) -> Run:
    attention = "varlen" if kernels == "fused" else "sdpa"
    described = ("model=demo", "data=demo", f"data.cutoff={CUTOFF}", "training.precision=fp32", f"training.attention={attention}")
    return compose([*described, f"training.kernels={kernels}", *overrides])


def model_of(family: str, run: Run) -> PreTrainedModel:
    name = implementation(run)
    set_seed(1)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **OF_FAMILY.get(family, SIZES)), attn_implementation=name)
    return model.train()


def rows(lengths: tuple[int, ...] = LENGTHS) -> list[dict[str, list[int]]]:
    """A label is its own token, also the first, which no row predicts; the first half of the fourth row is not learned."""
    set_seed(2)
    made = [torch.randint(1, 96, (length,)).tolist() for length in lengths]
    hidden = [len(ids) // 2 if number == 3 else 0 for number, ids in enumerate(made)]
    return [{"input_ids": ids, "labels": [MASKED] * unlearned + ids[unlearned:]} for ids, unlearned in zip(made, hidden, strict=True)]


def batch_of(run: Run, those: list[dict[str, list[int]]]) -> dict[str, Any]:
    batch = build_collator(run, byte_tokenizer())(those)
    batch["input_ids"] = batch["input_ids"].where(batch["input_ids"] < 96, torch.tensor(0))  # the built-in tokenizer pads beyond these vocabularies
    return batch


def passed(family: str, run: Run, parts: list[list[dict[str, list[int]]]], items: int) -> tuple[Tensor, dict[str, Tensor]]:
    model = model_of(family, run)
    total = torch.zeros(())
    for part in parts:
        loss = model(**batch_of(run, part), num_items_in_batch=items).loss
        loss.backward()
        total += loss.detach()
    return total, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def learned(those: list[dict[str, list[int]]]) -> int:
    return sum(label != MASKED for row in those for label in row["labels"][1:])


@pytest.mark.parametrize("family", COMPARED)
def test_loss_and_gradients_are_those_of_padded_rows(family: str) -> None:
    items = learned(rows())
    padded = passed(family, run_of("plain"), [rows()], items)
    for parts in ([rows()], [rows()[:2], rows()[2:]], [rows()[:1], rows()[1:2], rows()[2:]]):
        joined = passed(family, run_of("fused"), parts, items)
        torch.testing.assert_close(joined[0], padded[0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(joined[1], padded[1], rtol=1e-5, atol=1e-6)


def test_a_batch_holds_no_padding_and_the_bounds_of_its_rows() -> None:
    batch = joined_batch([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}, {"input_ids": [4, 5], "labels": [MASKED, 5]}], full=8)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5]]
    assert batch["labels"].tolist() == [[MASKED, 2, 3, MASKED, 5]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5]
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert batch["max_length_q"] == 3
    assert batch["use_cache"] is False


def test_a_filled_up_batch_learns_nothing_of_the_filling_and_counts_its_own_tokens() -> None:
    batch = joined_batch([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}], full=8, multiple=5)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 0, 0]]
    assert batch["labels"].tolist() == [[MASKED, 2, 3, MASKED, MASKED]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5]
    assert batch["real_tokens"] == 3


@pytest.mark.parametrize(
    ("real", "most", "tokens"),
    [
        (1000, 16384, 1024),  # a multiple of 128
        (4900, 16384, 5120),  # of 4096 / 16
        (9000, 16384, 9216),  # of 8192 / 16
        (16300, 16384, 16384),
        (7990, 8000, 8064),  # not to 8192: no batch is longer than the longest, to a multiple of 128
    ],
)
def test_few_numbers_of_tokens_come_up_and_none_above_the_longest(real: int, most: int, tokens: int) -> None:
    assert filled(real, 128, most) == tokens
    assert filled(real, 1, most) == real


def test_rows_of_full_length_stay_a_matrix() -> None:
    row = {"input_ids": [1, 2, 3], "labels": [1, 2, 3]}
    batch = joined_batch([row, row], full=3)
    assert batch["input_ids"].shape == (2, 3)
    assert "position_ids" not in batch


def test_the_learned_tokens_that_a_step_counts_are_those_of_padded_rows() -> None:
    """transformers counts labels[..., 1:] of every batch."""
    joined, padded = batch_of(run_of("fused"), rows()), batch_of(run_of("plain"), rows())
    assert int(joined["labels"][..., 1:].ne(MASKED).sum()) == int(padded["labels"][..., 1:].ne(MASKED).sum()) == learned(rows())


def test_no_sample_reads_another() -> None:
    run = run_of("fused")
    model, those = model_of("llama", run).eval(), rows()
    changed = [dict(row) for row in those]
    changed[1]["input_ids"] = [95 - token for token in changed[1]["input_ids"]]
    with torch.no_grad():
        before, after = (model(**{**batch_of(run, each), "labels": None}).logits[0] for each in (those, changed))
    assert torch.equal(before[:5], after[:5])
    assert torch.equal(before[21:], after[21:])  # rows of 5 and 16 tokens lie before
    assert not torch.equal(before[5:21], after[5:21])


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_full_rows_and_packed_rows_are_those_of_the_plain_path(family: str) -> None:
    full = rows((CUTOFF, CUTOFF))
    plain, fused = (passed(family, run_of(kernels), [full], learned(full)) for kernels in ("plain", "fused"))
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)


def test_padded_rows_of_a_fused_run_keep_their_mask() -> None:
    """training.attention=sdpa leaves rows padded; layers and adapters are fused all the same."""
    run = run_of("fused", "training.attention=sdpa")
    padded, items = passed("llama", run_of("plain"), [rows()], learned(rows())), learned(rows())
    torch.testing.assert_close(passed("llama", run, [rows()], items), padded, rtol=1e-5, atol=1e-6)


def test_recomputed_layers_of_an_adapter_give_the_same_gradients() -> None:
    def adapter_gradients(kernels: str, checkpointing: bool) -> dict[str, Tensor]:
        from trainers.kernels.lora import fuse_adapters

        run = run_of(kernels)
        base = model_of("llama", run)
        set_seed(3)
        model: nn.Module = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
        if kernels == "fused":
            fuse_adapters(model)
        if checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
            base.enable_input_require_grads()
        model(**batch_of(run, rows()), num_items_in_batch=learned(rows())).loss.backward()
        return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}

    plain = adapter_gradients("plain", False)
    for checkpointing in (False, True):
        torch.testing.assert_close(adapter_gradients("fused", checkpointing), plain, rtol=1e-5, atol=1e-6)


def test_torch_has_the_kernel_of_joined_rows_with_the_arguments_that_it_is_given() -> None:
    """trainers/kernels/attention.py calls it below torch.nn.attention.varlen; it runs on GPUs alone."""
    arguments = torch.ops.aten._flash_attention_forward.default._schema.arguments
    positional = ["query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p", "is_causal", "return_debug_mask"]
    assert [argument.name for argument in arguments if not argument.kwarg_only] == positional
    assert {"scale", "window_size_left", "window_size_right"} <= {argument.name for argument in arguments if argument.kwarg_only}
