"""What the GPU driver says is what torch finds."""

import pytest

from launcher.composition.compose import compose
from launcher.facts.node import settle_node

pytestmark = pytest.mark.gpu(1)


def test_node_auto_counts_and_measures_the_gpus_that_torch_sees() -> None:
    import torch

    facts = settle_node(compose(["node=auto"]).node, 1)
    total = torch.cuda.get_device_properties(0).total_memory
    assert facts.node.gpus == torch.cuda.device_count()
    assert facts.node.gpu_memory is not None
    assert total <= facts.node.gpu_memory <= 1.02 * total  # NVML counts what the driver keeps for itself too
    assert all(free <= facts.node.gpu_memory for free in facts.gpu_free)
