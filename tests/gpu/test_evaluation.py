"""On one and on two GPUs: what an evaluation measures under FSDP2, DDP and ZeRO-3 equals a plain loop over the samples, in any micro-batch."""

from pathlib import Path

import pytest
from evaluations import PACKED, Cell, allowed, assert_plain, evaluate_cells, save_start

STAGES = ("pt", "sft", "rm", "dpo", "kto", "orpo", "simpo", "ppo", "grpo")
FORMS: tuple[tuple[str, ...], ...] = (PACKED, ("training.loss=chunked",), ("training.loss=fused",), ("training.kernels=fused", "training.loss=fused"))
ERROR = 1e-5


def assert_each_is_plain(cells: list[Cell], root: Path) -> None:
    save_start(root)
    for cell, found in evaluate_cells(allowed(cells, root), root).items():
        assert_plain(cell, found, root, ERROR)


def cells_on(gpus: int, sharding: str) -> list[Cell]:
    """Of one sharding: accelerate never leaves DeepSpeed or FSDP again within one process."""
    return [
        Cell(stage, sharding, gpus, further, node="auto")
        for stage, further in (*((stage, ()) for stage in STAGES), *(("sft", form) for form in FORMS))
    ]


@pytest.mark.gpu(1)
@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_one_gpu_measures_what_a_plain_loop_measures(sharding: str, tmp_path: Path) -> None:
    assert_each_is_plain(cells_on(1, sharding), tmp_path)


@pytest.mark.gpu(2)
@pytest.mark.parametrize("sharding", ["ddp", "fsdp2", "zero3"])
def test_two_gpus_measure_what_a_plain_loop_measures(sharding: str, tmp_path: Path) -> None:
    assert_each_is_plain(cells_on(2, sharding), tmp_path)
