"""The numbers of rows travel with training batches alone, and no model sees them."""

from typing import Any

import pytest
import torch
from datasets import Dataset

from trainers.data.rows.numbers import NUMBER, KeepingNumbers, number_of, numbered, taken_numbers

ROWS = [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}, {"input_ids": [5, 6, 7]}]


def seen(rows: list[Any]) -> dict[str, Any]:
    assert all(NUMBER not in row for row in rows)
    return {"input_ids": torch.tensor([row["input_ids"][0] for row in rows])}


@pytest.mark.parametrize("collate", [seen, list])
def test_numbers_are_taken_out_before_a_model_sees_the_batch(collate: Any) -> None:
    rows = numbered(Dataset.from_list(ROWS))
    batches = [KeepingNumbers(collate)([rows[2], rows[0]]), KeepingNumbers(collate)([rows[1]])]
    assert taken_numbers(batches) == [2, 0, 1]
    assert all(NUMBER not in part for batch in batches for part in (batch if isinstance(batch, list) else [batch]))
    assert taken_numbers(batches) == []


def test_a_row_of_a_stream_has_the_number_of_its_tokens() -> None:
    first, second, third = map(number_of, ROWS)
    assert first == third != second
