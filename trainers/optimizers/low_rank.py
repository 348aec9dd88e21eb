"""GaLore and APOLLO over the matrices of the layers, AdamW for all else, with projections that a checkpoint keeps."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from conf.schema import Apollo, Galore, Run
from trainers.optimizers.matrices import hidden_matrices, other_weights

# What changes in a projector of either library; the rest of it is in its group.
CHANGING = ("ortho_matrix", "seed", "svd_count")
Projector = Any  # galore_torch's GaLoreProjector or apollo_torch's GradientProjector: neither library has types
MakeProjector = Callable[[dict[str, Any], dict[str, Any]], Projector]


def galore(model: PreTrainedModel, run: Run) -> Optimizer:
    """Raises ValueError when no matrix learns."""
    from galore_torch import GaLoreAdamW

    optim = run.optim
    assert isinstance(optim, Galore)
    settings = {"no_deprecation_warning": True, "eps": optim.eps}
    optimizer = GaLoreAdamW(groups(model, optim), lr=optim.lr, betas=(optim.beta1, optim.beta2), **settings)
    return resumable(with_own_projectors(optimizer), galore_projector)


def galore_8bit(model: PreTrainedModel, run: Run) -> Optimizer:
    """Raises ValueError when no matrix learns."""
    from galore_torch import GaLoreAdamW8bit

    optim = run.optim
    assert isinstance(optim, Galore)
    optimizer = GaLoreAdamW8bit(groups(model, optim), lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps)
    return resumable(with_own_projectors(optimizer), galore_projector)


def apollo(model: PreTrainedModel, run: Run) -> Optimizer:
    """Raises ValueError when no matrix learns."""
    from apollo_torch import APOLLOAdamW

    optim = run.optim
    assert isinstance(optim, Apollo)
    projected = {"proj": "random", "scale_type": optim.scale_by}
    optimizer = APOLLOAdamW(groups(model, optim, **projected), lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps)
    return resumable(optimizer, optimizer._initialize_projector)


def groups(model: PreTrainedModel, optim: Galore, **projected: Any) -> list[dict[str, Any]]:
    """Matrices between embedding and head are projected by their smaller side; norms and biases do not decay."""
    hidden, rest = hidden_matrices(model), other_weights(model)
    if not hidden:
        raise ValueError(f"optim={optim.name}: it projects only matrices between embedding and head, and none of them learns. Use optim=adamw.")
    projection = {"rank": optim.rank, "update_proj_gap": optim.update_interval, "scale": optim.scale, "proj_type": "std", **projected}
    parts: list[tuple[list[nn.Parameter], dict[str, Any]]] = [
        (hidden, {"weight_decay": optim.weight_decay, **projection}),
        ([weight for weight in rest if weight.ndim > 1], {"weight_decay": optim.weight_decay}),
        ([weight for weight in rest if weight.ndim == 1], {"weight_decay": 0.0}),
    ]
    return [{"params": weights, **settings} for weights, settings in parts if weights]


def resumable(optimizer: Optimizer, make: MakeProjector) -> Optimizer:
    """Save projectors as tensors and numbers, which a checkpoint may hold, and build them again before the first step after loading.

    Both libraries keep them as objects: torch refuses to unpickle those, and nothing would move their matrices to the device.
    """
    optimizer.register_state_dict_post_hook(without_projectors)
    optimizer.register_step_pre_hook(lambda optimizer, *_: with_projectors(optimizer, make))
    return optimizer


def without_projectors(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    return {**state_dict, "state": {number: plain(state) for number, state in state_dict["state"].items()}}


def plain(state: dict[str, Any]) -> dict[str, Any]:
    if "projector" not in state:
        return state
    kept = {name: value for name, value in vars(state["projector"]).items() if name in CHANGING}
    return {**{name: value for name, value in state.items() if name != "projector"}, "projection": kept}


def with_projectors(optimizer: Optimizer, make: MakeProjector) -> None:
    for group in optimizer.param_groups:
        for weight in group["params"]:
            state = optimizer.state[weight]
            if "projection" in state:
                state["projector"] = restored(make(group, state), state.pop("projection"), weight.device)


def restored(projector: Projector, kept: dict[str, Any], device: torch.device) -> Projector:
    for name, value in kept.items():
        setattr(projector, name, value.to(device) if torch.is_tensor(value) else value)
    return projector


def with_own_projectors(optimizer: Optimizer) -> Optimizer:
    """The library makes a matrix' projector at its first step; here it finds one of ours."""
    optimizer.register_step_pre_hook(lambda optimizer, *_: give_projectors(optimizer))
    return optimizer


def give_projectors(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        for weight in group["params"] if "rank" in group else ():
            state = optimizer.state[weight]
            if weight.grad is not None and "projector" not in state and "projection" not in state:
                state["projector"] = galore_projector(group, state)


def galore_projector(group: dict[str, Any], state: dict[str, Any]) -> Projector:
    """Its matrix is a view of all orthogonal directions when the gradient is fp32, and would keep them: of Qwen2.5-0.5B 0.31 GiB on an H200."""
    from galore_torch.galore_projector import GaLoreProjector

    class CompactProjector(GaLoreProjector):  # type: ignore[misc]  # by inheritance, since the library calls this method of itself
        def get_orthogonal_matrix(self, weights: torch.Tensor, rank: int, type: str) -> torch.Tensor:
            chosen: torch.Tensor = super().get_orthogonal_matrix(weights, rank, type)
            return chosen.clone()

    return CompactProjector(group["rank"], update_proj_gap=group["update_proj_gap"], scale=group["scale"], proj_type=group["proj_type"])
