"""BAdam: one layer learns at a time, as the authors' own optimizer has it, and a checkpoint within a layer's turn is exact."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from badam import BlockOptimizer
from transformers import PreTrainedModel

from conf.schema import Run
from tests.described import described
from trainers.model.build import load_model
from trainers.optimizers.block_wise import BlockAdamW, badam, block_at
from trainers.stages import sft

FIXED = ("embed_tokens", "model.norm")  # the head is tied


def run_of(*overrides: str) -> Run:
    common = ["model=demo", "data=demo", "node=cpu", "cluster.ranks_per_node=1", "regime=full", "optim=badam", "optim.lr=0.01"]
    return described(*common, "optim.switch_interval=2", "training.precision=bf16", *overrides)


def steps(model: PreTrainedModel, optimizer: torch.optim.Optimizer, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for weight in model.parameters():
            gradient = torch.randn(weight.shape, generator=generator).to(weight.dtype)
            weight.grad = gradient if weight.requires_grad else None
        optimizer.step()


def learning(model: PreTrainedModel) -> set[str]:
    return {".".join(name.split(".")[1:3]) for name, weight in model.named_parameters() if weight.requires_grad}


def test_every_layer_has_its_turn_and_nothing_else_changes() -> None:
    run = run_of()
    model = load_model(run, sft.MODEL_CLASS)
    before = deepcopy(model.state_dict())
    optimizer = badam(model, run)
    turns = []
    for number in range(5):
        turns.append(learning(model))
        steps(model, optimizer, 1, seed=number)
    assert turns == [{"layers.0"}, {"layers.0"}, {"layers.1"}, {"layers.1"}, {"layers.0"}]
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) == any(part in name for part in FIXED), name


def test_states_and_masters_are_of_the_active_layer_alone() -> None:
    run = run_of()
    model = load_model(run, sft.MODEL_CLASS)
    optimizer = badam(model, run)
    steps(model, optimizer, 3, seed=0)
    assert {id(weight) for weight in optimizer.state} == {id(weight) for weight in model.model.layers[1].parameters()}
    assert all({value.dtype for value in state.values()} == {torch.float32} for state in optimizer.state.values())
    assert all(set(state) == {"step", "exp_avg", "exp_avg_sq", "master"} for state in optimizer.state.values())


def test_weights_of_32_bits_are_their_own_masters() -> None:
    run = run_of("training.precision=fp32")
    model = load_model(run, sft.MODEL_CLASS)
    optimizer = badam(model, run)
    steps(model, optimizer, 1, seed=0)
    assert all("master" not in state for state in optimizer.state.values())


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_five_steps_are_those_of_the_authors_own_optimizer(order: str) -> None:
    run = run_of(f"optim.order={order}")
    model = load_model(run, sft.MODEL_CLASS)
    twin = deepcopy(model)
    base = torch.optim.AdamW(twin.parameters(), lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    theirs = BlockOptimizer(base, list(twin.named_parameters()), switch_block_every=2, switch_mode=order)
    theirs.global_step = -1  # badam 1.4 counts a step before it asks whether the turn is over: its first one is a step short
    steps(twin, theirs, 5, seed=0)
    steps(model, badam(model, run), 5, seed=0)
    torch.testing.assert_close(dict(model.named_parameters()), dict(twin.named_parameters()), rtol=0, atol=0)


def resumed_optimizer(model: PreTrainedModel, run: Run, saved: BlockAdamW, folder: Path) -> BlockAdamW:
    torch.save(saved.state_dict(), folder / "optimizer.pt")
    optimizer = badam(model, run)
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
    return optimizer


@pytest.mark.parametrize("before", [3, 4])  # within a turn, and between two
@pytest.mark.parametrize("order", ["ascending", "random"])
def test_a_saved_turn_goes_on_with_the_same_steps(order: str, before: int, tmp_path: Path) -> None:
    run = run_of(f"optim.order={order}")
    model = load_model(run, sft.MODEL_CLASS)
    optimizer = badam(model, run)
    steps(model, optimizer, before, seed=0)
    twin = deepcopy(model)
    resumed = resumed_optimizer(twin, run, optimizer, tmp_path)
    assert learning(twin) == learning(model)
    steps(model, optimizer, 4, seed=1)
    steps(twin, resumed, 4, seed=1)
    torch.testing.assert_close(dict(twin.named_parameters()), dict(model.named_parameters()), rtol=0, atol=0)


def test_every_pass_takes_each_block_once() -> None:
    assert [block_at(turn, 3, "ascending", 0) for turn in range(4)] == [0, 1, 2, 0]
    assert [block_at(turn, 3, "descending", 0) for turn in range(4)] == [2, 1, 0, 2]
    passes = [[block_at(6 * number + turn, 6, "random", seed=7) for turn in range(6)] for number in range(3)]
    assert all(sorted(blocks) == [0, 1, 2, 3, 4, 5] for blocks in passes)
    assert passes[0] != passes[1]
