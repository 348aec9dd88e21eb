"""Batches: padding, masks and their absence."""

import torch

from launcher.composition.compose import compose
from trainers.data.rows.collator import build_collator, sample_lengths
from trainers.model.tokenizer import byte_tokenizer


def row(*ids: int) -> dict[str, list[int]]:
    return {"input_ids": list(ids), "labels": [-100, *ids[1:]]}


def test_short_rows_are_padded_right_and_masked_by_position():
    collate = build_collator(compose(["model=demo", "data=demo", "training.precision=fp32"]), byte_tokenizer())
    batch = collate([row(1, 2, 3), row(4)])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 256, 256]]  # 256: <|pad|>
    assert batch["labels"].tolist() == [[-100, 2, 3], [-100, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["input_ids"].dtype == torch.int64


def test_rows_of_one_length_need_no_mask_and_no_rounding():
    collate = build_collator(compose(["model=demo", "data=demo", "training.precision=bf16_amp"]), byte_tokenizer())
    batch = collate([row(1, 2, 3), row(4, 5, 6)])
    assert set(batch) == {"input_ids", "labels"}
    assert batch["input_ids"].shape == (2, 3)


def test_half_precision_pads_to_a_multiple_of_eight():
    collate = build_collator(compose(["model=demo", "data=demo", "training.precision=bf16_amp"]), byte_tokenizer())
    assert collate([row(*range(9)), row(1)])["input_ids"].shape == (2, 16)


def test_a_real_end_token_is_learned_even_where_padding_has_the_same_id():
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    end = tokenizer.eos_token_id
    batch = build_collator(compose(["model=demo", "data=demo", "training.precision=fp32"]), tokenizer)([row(1, end), row(1, 2, 3)])
    assert batch["input_ids"].tolist()[0] == [1, end, end]
    assert batch["labels"].tolist()[0] == [-100, end, -100]


def test_packed_rows_carry_positions_instead_of_a_mask():
    run = compose(["model=demo", "data=demo", "data.packing=true", "training.precision=fp32"])
    packed = {**row(1, 2, 3), "position_ids": [0, 1, 0]}
    batch = build_collator(run, byte_tokenizer())([packed, {**row(4), "position_ids": [0]}])
    assert batch["position_ids"].tolist() == [[0, 1, 0], [0, 0, 0]]
    assert "attention_mask" not in batch
    assert batch["use_cache"] is False


def test_rows_for_varlen_bring_the_bounds_of_their_samples_and_count_padding_as_one():
    run = compose(["model=demo", "data=demo", "data.packing=true", "training.attention=varlen", "training.precision=fp32"])
    rows = [{**row(1, 2, 3, 4, 5), "position_ids": [0, 1, 2, 0, 1]}, {**row(6), "position_ids": [0]}]
    batch = build_collator(run, byte_tokenizer())(rows)
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5, 6, 10]  # samples of 3, 2 and 1 tokens, and 4 of padding
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert batch["max_length_q"] == 4
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 0, 0, 0, 0]]


def test_a_row_that_begins_in_the_middle_of_a_sample_has_a_bound_there():
    assert sample_lengths([5, 6, 0, 1, 2, 1], width=6) == [2, 3, 1]
