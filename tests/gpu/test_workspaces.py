"""On a GPU: what cuBLAS keeps is made before the first step, once for each thread that multiplies."""

import pytest

pytestmark = pytest.mark.gpu(1)


@pytest.mark.parametrize("both_threads", [True, False])
def test_later_products_of_the_same_threads_make_no_workspace(both_threads: bool) -> None:
    import torch

    from trainers.callbacks.workspaces import multiply_once

    device = torch.device("cuda", 0)
    multiply_once(device, both_threads)
    before = torch.cuda.memory_allocated()
    one = torch.ones(32, 32, device=device, requires_grad=True)
    with torch.autograd.set_multithreading_enabled(both_threads):
        (one @ one).sum().backward()
    del one

    assert torch.cuda.memory_allocated() == before
    assert before > 0
