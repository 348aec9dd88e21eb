"""Named parameters of a checkpoint: elements out of parts. Files of real ranks are read by tests/distributed/test_relaid.py."""

from pathlib import Path

import pytest
import torch
from torch.nn import Linear, Sequential
from torch.optim import SGD, AdamW

from trainers.checkpoints.held import fill, held_plainly
from trainers.checkpoints.saved import Layout, SavedParameter, layout_of, read_saved

PARTS = [torch.arange(0.0, 4.0), torch.arange(4.0, 5.0), torch.arange(5.0, 9.0)]


@pytest.mark.parametrize(
    ("begin", "count", "found"),
    [(0, 9, [(0, [0, 1, 2, 3]), (4, [4]), (5, [5, 6, 7, 8])]), (3, 3, [(0, [3]), (1, [4]), (2, [5])]), (5, 2, [(0, [5, 6])]), (4, 0, [])],
)
def test_elements_come_from_the_parts_that_have_them(begin: int, count: int, found: list[tuple[int, list[int]]]) -> None:
    parameter = SavedParameter({"weight": PARTS})
    assert [(position, elements.tolist()) for position, elements in parameter.elements("weight", begin, count)] == found


def test_a_parameter_that_is_larger_than_what_was_saved_is_refused() -> None:
    with pytest.raises(ValueError, match="holds 9 elements of a tensor that has 10"):
        list(SavedParameter({"weight": PARTS}).elements("weight", 8, 2))


def test_a_folder_without_states_has_no_layout(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="holds no states of an optimizer"):
        layout_of(tmp_path)


def model() -> Sequential:
    return Sequential(Linear(3, 4), Linear(4, 2))


@pytest.mark.parametrize("make", [AdamW, SGD])
def test_what_plain_ranks_save_is_filled_in_bit_for_bit(make: type[torch.optim.Optimizer], tmp_path: Path) -> None:
    """Also where the groups of the optimizer have the parameters in another order than the model."""
    from safetensors.torch import save_model

    trained, fresh = model(), model()
    parameters = dict(trained.named_parameters())
    order = sorted(parameters, reverse=True)
    optimizer = make([{"params": [parameters[name]]} for name in order], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        trained(torch.rand(5, 3)).square().sum().backward()
        optimizer.step()
    save_model(trained, str(tmp_path / "model.safetensors"))
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    assert layout_of(tmp_path) == Layout("torch")
    again = make(fresh.parameters(), lr=0.1)
    fill(held_plainly(fresh), read_saved(tmp_path, order, {}), again)
    assert all(torch.equal(weight, fresh.get_parameter(name)) for name, weight in parameters.items())
    for name, weight in parameters.items():
        before, after = optimizer.state[weight], again.state[fresh.get_parameter(name)]
        assert {key: value.tolist() for key, value in before.items() if value is not None} == {key: value.tolist() for key, value in after.items()}
