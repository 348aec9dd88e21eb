"""CUDA's buffer for sums over tokens."""

import pytest

from launcher.memory.step.column_sums import column_sum_bytes


def test_what_was_alive_on_an_h200_is_met_to_the_byte():
    """benchmarks/memory/alive.py lora-dora-fused/qwen2.5_0.5b/4x1024: one block of this size at the peak of the backward pass."""
    assert column_sum_bytes(4096, 4864) == 139_460_608


@pytest.mark.parametrize(("rows", "columns"), [(1, 4864), (512, 4864), (16384, 1_000_000)])
def test_one_block_for_each_column_needs_none(rows, columns):
    assert column_sum_bytes(rows, columns) == 0


def test_a_thread_takes_at_most_256_rows_however_many_columns_there_are():
    assert column_sum_bytes(65536, 40_000) == 4 * 40_000 * (65536 // 4 // 256) * 32 * 4
