"""Packing, and that a packed batch computes what the same samples compute alone."""

from typing import Any

import numpy
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from trainers.data.rows.collator import packed_batch, padded_batch
from trainers.data.rows.packing import pack_lengths, packed_row, positions

WIDTHS: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,  # large enough that leaked attention would show
}


def test_each_sample_goes_into_the_fullest_row_that_takes_it():
    # 6 opens row 0 (4 left), 5 row 1 (5 left), 4 fills row 0, 3 row 1 (2 left), 2 fills row 1.
    assert pack_lengths([2, 3, 4, 5, 6], capacity=10) == [[4, 2], [3, 1, 0]]


def test_equal_lengths_keep_their_order():
    assert pack_lengths([5, 5, 5], capacity=10) == [[0, 1], [2]]


def test_every_sample_is_in_exactly_one_row_and_no_row_is_too_long():
    lengths = [(7 * index) % 31 + 1 for index in range(500)]
    rows = pack_lengths(lengths, capacity=32)
    assert sorted(sample for row in rows for sample in row) == list(range(500))
    assert max(sum(lengths[sample] for sample in row) for row in rows) <= 32
    assert len(rows) <= -(-sum(lengths) // 32) + 5  # lengths 1 to 31 mix well: close to the least possible number of rows


def test_positions_restart_with_every_sample():
    assert packed_row([([5, 6, 7], [-100, 6, 7]), ([8, 9], [-100, 9])]) == {
        "input_ids": [5, 6, 7, 8, 9],
        "labels": [-100, 6, 7, -100, 9],
        "position_ids": [0, 1, 2, 0, 1],
    }
    assert positions(numpy.array([3, 2])).tolist() == [0, 1, 2, 0, 1]


def samples_of(lengths: list[int]) -> list[tuple[list[int], list[int]]]:
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randint(1, 32, (length,), generator=generator).tolist() for length in lengths]
    return [(ids, [-100, *ids[1:]]) for ids in drawn]


def loss_and_gradients(model: torch.nn.Module, batch: dict[str, Any]) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]


def models_of_both_kinds(attention: str) -> list[torch.nn.Module]:
    torch.manual_seed(0)
    llama = LlamaForCausalLM(LlamaConfig(**WIDTHS, attn_implementation=attention))
    mistral = MistralForCausalLM(MistralConfig(**WIDTHS, sliding_window=4, attn_implementation=attention))
    return [llama, mistral]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model_kind", [0, 1], ids=["llama", "mistral with a sliding window"])
def test_packed_and_padded_batches_have_equal_losses_and_gradients(attention: str, model_kind: int):
    model = models_of_both_kinds(attention)[model_kind]
    assert model.config.use_cache  # the setting under which transformers would not look at the positions
    samples = samples_of([9, 7, 6, 5, 1, 3])
    rows = [packed_row([samples[index] for index in row]) for row in pack_lengths([9, 7, 6, 5, 1, 3], capacity=16)]
    assert [len(row["input_ids"]) for row in rows] == [16, 15]  # 9+7; 6+5+3+1: the second row is padded
    packed = loss_and_gradients(model, packed_batch([dict(row) for row in rows], padding=0, multiple=8))
    plain = loss_and_gradients(model, padded_batch([{"input_ids": ids, "labels": labels} for ids, labels in samples], padding=0, multiple=1))
    assert packed[0] == pytest.approx(plain[0], abs=1e-5)
    for one, other in zip(packed[1], plain[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_without_restarting_positions_the_loss_would_differ():
    model = models_of_both_kinds("sdpa")[0]
    row = dict(packed_row(samples_of([9, 7])))
    apart = model(**packed_batch([row], padding=0, multiple=1)).loss
    together = model(**padded_batch([row], padding=0, multiple=1)).loss
    assert abs(apart.item() - together.item()) > 1e-2
