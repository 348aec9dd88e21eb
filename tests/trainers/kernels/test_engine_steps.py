"""The norm of gradients in parts, and how they are scaled by it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from trainers.kernels.engine_steps import global_norm, scale_down


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[dist.ProcessGroup]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_is_that_of_all_numbers_in_fp32(alone: dist.ProcessGroup, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    parts = [torch.randn(size).to(dtype) for size in (3, 400, 1)]
    norm = global_norm(parts, alone, "cpu")
    assert norm.dtype == torch.float32
    assert float(norm) == pytest.approx(float(torch.cat(parts).double().norm()), rel=1e-6)


def test_a_rank_that_holds_nothing_adds_nothing(alone: dist.ProcessGroup) -> None:
    assert float(global_norm([], alone, "cpu")) == 0.0


@pytest.mark.parametrize("largest", [0.5, 1e4, 0.0], ids=["scaled", "small enough", "never scaled"])
def test_gradients_are_scaled_as_torch_does_it(alone: dist.ProcessGroup, largest: float) -> None:
    torch.manual_seed(0)
    flat, weight = torch.randn(50), torch.nn.Parameter(torch.zeros(50))
    weight.grad = flat.clone()
    if largest:
        torch.nn.utils.clip_grad_norm_([weight], largest)
    scale_down([flat], global_norm([flat], alone, "cpu"), largest)
    torch.testing.assert_close(flat, weight.grad)


def test_what_is_not_finite_stays_so(alone: dist.ProcessGroup) -> None:
    flat = torch.tensor([1.0, float("inf")])
    norm = global_norm([flat], alone, "cpu")
    scale_down([flat], norm, 1.0)
    assert not torch.isfinite(norm)
    assert not torch.isfinite(flat).all()
