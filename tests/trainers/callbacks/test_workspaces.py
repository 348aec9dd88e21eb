"""The products that make cuBLAS' workspaces; their memory is looked at in tests/gpu/test_workspaces.py."""

import torch

from trainers.callbacks.workspaces import multiply_once


def test_the_products_draw_no_random_number_and_run_where_gradients_are_off() -> None:
    before = torch.get_rng_state()
    with torch.no_grad():
        multiply_once(torch.device("cpu"), both_threads=True)

    assert torch.equal(torch.get_rng_state(), before)
