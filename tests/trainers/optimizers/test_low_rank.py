"""GaLore and APOLLO: which weights they project, and that what they save leads to the same steps in another process."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from galore_torch import GaLoreAdamW
from torch.optim import Optimizer
from transformers import PreTrainedModel

from conf.schema import Run
from tests.described import described
from trainers.model.build import load_model
from trainers.optimizers.low_rank import apollo, galore
from trainers.stages import sft

Make = Callable[[PreTrainedModel, Run], Optimizer]
CHOICES: dict[str, Make] = {"galore": galore, "apollo": apollo}


def run_of(*overrides: str) -> Run:
    return described("model=demo", "data=demo", "node=cpu", "cluster.ranks_per_node=1", "regime=full", "optim.lr=0.01", "optim.rank=8", *overrides)


def steps(model: PreTrainedModel, optimizer: Optimizer, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for weight in model.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)
        optimizer.step()


def through_a_file(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """As the Trainer loads it: nothing but tensors and plain values may be in it."""
    torch.save(state, folder / "optimizer.pt")
    loaded: dict[str, Any] = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
    return loaded


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CHOICES)
def test_a_saved_projection_goes_on_with_the_same_steps_over_its_next_update(name: str, precision: str, tmp_path: Path) -> None:
    run = run_of(f"optim={name}", f"training.precision={precision}", "optim.update_interval=3")
    model = load_model(run, sft.MODEL_CLASS)
    optimizer = CHOICES[name](model, run)
    steps(model, optimizer, 2, seed=0)
    twin = deepcopy(model)
    resumed = CHOICES[name](twin, run)
    resumed.load_state_dict(through_a_file(optimizer.state_dict(), tmp_path))
    steps(model, optimizer, 3, seed=1)
    steps(twin, resumed, 3, seed=1)
    torch.testing.assert_close(dict(twin.named_parameters()), dict(model.named_parameters()), rtol=0, atol=0)


def test_saving_leaves_the_optimizer_as_it_is() -> None:
    run = run_of("optim=apollo")
    model = load_model(run, sft.MODEL_CLASS)
    optimizer = apollo(model, run)
    steps(model, optimizer, 1, seed=0)
    optimizer.state_dict()
    weight = model.model.layers[0].mlp.up_proj.weight
    assert optimizer.state[weight]["projector"].ortho_matrix.shape == (8, 128)


def test_a_projector_keeps_its_rank_alone_and_not_all_directions() -> None:
    run = run_of("optim=galore", "training.precision=fp32")
    model = load_model(run, sft.MODEL_CLASS)
    optimizer = galore(model, run)
    steps(model, optimizer, 1, seed=0)
    matrix = optimizer.state[model.model.layers[0].mlp.up_proj.weight]["projector"].ortho_matrix
    assert matrix.shape == (8, 128)
    assert matrix.untyped_storage().nbytes() == 4 * 8 * 128


def test_the_matrices_of_the_layers_are_projected_and_norms_do_not_decay() -> None:
    run = run_of("optim=galore", "optim.weight_decay=0.1")
    model = load_model(run, sft.MODEL_CLASS)
    optimizer = galore(model, run)
    settings = {id(weight): (group.get("rank"), group["weight_decay"]) for group in optimizer.param_groups for weight in group["params"]}
    for name, weight in model.named_parameters():
        expected = (8, 0.1) if "_proj" in name else (None, 0.0 if "norm" in name else 0.1)
        assert settings[id(weight)] == expected, name


def test_a_step_is_that_of_the_library() -> None:
    run = run_of("optim=galore", "optim.weight_decay=0.1", "optim.scale=0.5")
    model = load_model(run, sft.MODEL_CLASS)
    twin = deepcopy(model)
    projected = {"rank": 8, "update_proj_gap": 200, "scale": 0.5, "proj_type": "std", "weight_decay": 0.1}
    names = dict(twin.named_parameters())
    groups = [
        {"params": [weight for name, weight in names.items() if "_proj" in name], **projected},
        {"params": [weight for name, weight in names.items() if "_proj" not in name and "norm" not in name], "weight_decay": 0.1},
        {"params": [weight for name, weight in names.items() if "norm" in name], "weight_decay": 0.0},
    ]
    steps(twin, GaLoreAdamW(groups, lr=0.01, betas=(0.9, 0.999), eps=1e-8, no_deprecation_warning=True), 2, seed=0)
    steps(model, galore(model, run), 2, seed=0)
    torch.testing.assert_close(dict(model.named_parameters()), names, rtol=0, atol=0)


def test_without_a_matrix_that_learns_another_optimizer_is_named() -> None:
    run = run_of("optim=apollo")
    model = load_model(run, sft.MODEL_CLASS)
    for name, weight in model.named_parameters():
        weight.requires_grad_("norm" in name)
    with pytest.raises(ValueError, match=r"optim=apollo: it projects only matrices between embedding and head.*optim=adamw"):
        apollo(model, run)
