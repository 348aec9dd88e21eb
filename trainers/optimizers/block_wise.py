"""BAdam (arXiv:2404.02827, algorithm 1): AdamW on one block of weights at a time, the others frozen; it can be saved and resumed within a block."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw
from transformers import PreTrainedModel

from conf.schema import Badam, Run
from trainers.regimes.layers import decoder_layers


class BlockAdamW(Optimizer):
    """Every group holds the position in the order of blocks, so that checkpoints do. States and master weights are fp32, of the active block alone.

    An Optimizer by inheritance, because torch's schedules refuse anything else.
    """

    def __init__(self, blocks: list[list[nn.Parameter]], optim: Badam, seed: int) -> None:
        self.blocks, self.interval, self.order, self.seed = blocks, optim.switch_interval, optim.order, seed
        weights = [weight for block in blocks for weight in block]
        settings = {"lr": optim.lr, "betas": (optim.beta1, optim.beta2), "eps": optim.eps, "steps": 0}
        decays = [weight for weight in weights if weight.ndim > 1]
        plain = [weight for weight in weights if weight.ndim == 1]  # norms and biases
        super().__init__([{"params": decays, "weight_decay": optim.weight_decay}, {"params": plain, "weight_decay": 0.0}], settings)
        self.activate()

    @property
    def active(self) -> list[nn.Parameter]:
        turn = self.param_groups[0]["steps"] // self.interval
        return self.blocks[block_at(turn, len(self.blocks), self.order, self.seed)]

    def activate(self) -> None:
        """Let the active block learn, and nothing else."""
        for block in self.blocks:
            for weight in block:
                weight.requires_grad_(False)
        for weight in self.active:
            weight.requires_grad_(True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        assert closure is None, "a Trainer computes the loss before the step"
        learning = {id(weight) for weight in self.active}
        for group in self.param_groups:
            for weight in group["params"]:
                if id(weight) in learning and weight.grad is not None:
                    self.step_weight(weight, group)
            group["steps"] += 1
        if self.param_groups[0]["steps"] % self.interval == 0:
            self.state.clear()  # the next block starts with fresh states
            self.zero_grad()
            self.activate()

    def step_weight(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state.update(fresh_state(weight))
        assert weight.grad is not None
        gradient, weight.grad = weight.grad.float(), None  # the 16-bit one goes before the next weight's turn
        master = state.get("master", weight)
        adamw(
            [master],
            [gradient],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            fused=weight.is_cuda,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        if "master" in state:
            weight.copy_(master)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's own, but states stay fp32 where torch gives them the dtype of their weight."""
        super().load_state_dict(state_dict)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for number, saved in state_dict["state"].items():
            weight = weights[number]
            self.state[weight] = {name: value.to(weight.device, copy=True) for name, value in saved.items()}
        self.activate()


def fresh_state(weight: nn.Parameter) -> dict[str, torch.Tensor]:
    moments = {name: torch.zeros_like(weight, dtype=torch.float32) for name in ("exp_avg", "exp_avg_sq")}
    master = {} if weight.dtype == torch.float32 else {"master": weight.detach().float()}
    return {"step": torch.zeros((), dtype=torch.float32, device=weight.device), **moments, **master}


def block_at(turn: int, blocks: int, order: str, seed: int) -> int:
    """The block that learns in that turn: every pass uses each block once."""
    number, position = divmod(turn, blocks)
    if order == "random":
        shuffled = torch.randperm(blocks, generator=torch.Generator().manual_seed(seed + number))
        return int(shuffled[position])
    return position if order == "ascending" else blocks - 1 - position


def badam(model: PreTrainedModel, run: Run) -> BlockAdamW:
    """One block per decoder layer; what lies outside of the layers is frozen."""
    assert isinstance(run.optim, Badam)
    _, layers = decoder_layers(model)
    model.requires_grad_(False)
    return BlockAdamW([list(layer.parameters()) for layer in layers], run.optim, run.training.seed)
