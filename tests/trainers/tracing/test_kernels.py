"""What a trace on a CPU takes from CUDA."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from trainers.tracing.kernels import kernels_as_on_a_gpu


@pytest.mark.parametrize(
    "function",
    [
        lambda values: torch.square(values),
        ACT2FN["relu2"],
        lambda values: torch.pow(values, 2),
        lambda values: nn.functional.layer_norm(values, (4,)),
    ],
)
def test_under_autocast_powers_and_norms_are_computed_in_fp32(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """As CUDA's autocast does; a CPU's leaves them in 16 bits."""
    values = torch.ones(2, 4, dtype=torch.bfloat16)
    with kernels_as_on_a_gpu():
        assert function(values).dtype == torch.bfloat16
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert function(values).dtype == torch.float32
