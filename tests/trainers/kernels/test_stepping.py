"""Clipping of gradients that are all of one kind."""

import pytest
import torch

from trainers.kernels.stepping import clip_together, one_kind


@pytest.mark.parametrize("largest", [0.5, 100.0], ids=["clipped", "small enough"])
def test_gradients_are_clipped_as_torch_does_it(largest: float) -> None:
    torch.manual_seed(0)
    ours, theirs = ([torch.nn.Parameter(torch.zeros(size)) for size in (3, 40, 1, 7)] for _ in range(2))
    for mine, other in zip(ours[:3], theirs[:3], strict=True):  # the last one has no gradient
        mine.grad = torch.randn(mine.shape)
        other.grad = mine.grad.clone()
    assert clip_together(ours, largest) == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, largest)), rel=1e-6)
    for mine, other in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    assert ours[3].grad is None


def test_weights_of_several_dtypes_are_of_several_kinds() -> None:
    assert one_kind([torch.zeros(2), torch.ones(3)])
    assert not one_kind([torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)])
