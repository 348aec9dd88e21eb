"""Every optimizer trains for real; Muon takes the matrices between embedding and head, and goes on from its saved state."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedModel, Trainer

from conf.optimizers import OPTIMIZERS
from conf.run_dir import RunDir
from conf.schema import Run
from launcher.composition.compose import choices
from launcher.facts.model import model_facts
from launcher.memory.weights.dtypes import storage_of
from launcher.memory.weights.optimizer import state_bytes
from launcher.memory.weights.parameters import census_of
from tests.described import described
from trainers.data import build_collator
from trainers.model.build import load_model
from trainers.model.tokenizer import load_tokenizer
from trainers.optimizers.build import BUILDERS, MuonAdamW, choose_optimizer, muon_and_adamw
from trainers.regimes import prepare_model
from trainers.stages import sft
from trainers.stages.shared.material import Material

ROWS = Dataset.from_list([{"input_ids": [5, 6, 7, 8], "labels": [-100, 6, 7, 8]}, {"input_ids": [9, 8, 7], "labels": [9, 8, 7]}])
COMMON = ["model=demo", "data=demo", "node=cpu", "cluster.ranks_per_node=1", "sharding=ddp", "training.gradient_checkpointing=false"]
SMALL = {"step"}  # not counted: one number per tensor


def run_of(*overrides: str) -> Run:
    return described(*COMMON, "training.max_steps=3", "optim.warmup=0", "evaluation.interval=0", "checkpoint.interval=0", *overrides)


def trained(run: Run, folder: Path) -> Trainer:
    """Three steps, by the parts in the order in which trainers/run.py puts them together."""
    tokenizer = load_tokenizer(run)
    arguments = sft.build_arguments(run, RunDir(folder), False)
    prepared = prepare_model(run, sft.MODEL_CLASS, folder / "base")
    trainer = sft.build_trainer(run, arguments, prepared, Material(tokenizer, ROWS, None, build_collator(run, tokenizer), []))
    choose_optimizer(trainer, run)
    trainer.train()
    return trainer


def losses(trainer: Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def held_bytes(optimizer: Any) -> int:
    """Of states as large as a weight; bitsandbytes' scales and code tables are counted too, torch's step numbers are not."""
    states = [state for of_weight in optimizer.state.values() for state in tensors(of_weight)]
    return sum({state.data_ptr(): state.numel() * state.element_size() for state in states}.values())


def tensors(state: dict[str, Any]) -> list[torch.Tensor]:
    """Those of a projector too, which is an object of its library."""
    projector = vars(state["projector"]) if "projector" in state else {}
    return [value for key, value in {**state, **projector}.items() if torch.is_tensor(value) and key not in SMALL]


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optim", [name for name in choices("optim") if name != "galore_8bit"])  # that one needs CUDA
def test_three_steps_lower_the_loss_and_keep_the_states_that_are_predicted(optim: str, precision: str, tmp_path: Path) -> None:
    run = run_of("regime=full", f"optim={optim}", f"training.precision={precision}", "optim.lr=0.003")
    trainer = trained(run, tmp_path)
    assert losses(trainer)[2] < losses(trainer)[0]
    assert trainer.optimizer is not None
    if optim != "adafactor":  # its estimate is an upper bound for widths from 256
        predicted = state_bytes(run, census_of(run, model_facts(run.model.architecture, "test")), storage_of(run))
        assert held_bytes(trainer.optimizer.optimizer) == pytest.approx(predicted, rel=0.03)  # 8 bits: a code table of 1 KiB


def test_what_transformers_has_no_name_for_has_a_builder() -> None:
    assert {name for name, row in OPTIMIZERS.items() if row.transformers is None} == set(BUILDERS)


@pytest.mark.parametrize("optim", ["lion", "muon", "paged_adamw"])
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_adapters_learn_by_each_new_optimizer(optim: str, tmp_path: Path) -> None:
    trainer = trained(run_of("regime=lora", "regime.rank=32", "regime.alpha=64", f"optim={optim}", "optim.lr=0.01"), tmp_path)
    assert losses(trainer)[2] < losses(trainer)[0]


@pytest.mark.parametrize("optim", ["adamw", "adamw_8bit", "adafactor", "muon", "sgd"])
def test_b_matrices_learn_at_their_own_rate_by_every_optimizer(optim: str, tmp_path: Path) -> None:
    rate = {"optim.lr=0.01", "optim.scheduler=constant", "optim.weight_decay=0.1"}
    trainer = trained(run_of("regime=lora", "regime.rank=8", "regime.lora_plus_ratio=4", f"optim={optim}", *rate), tmp_path)
    assert trainer.optimizer is not None
    rates = {id(weight): group["lr"] for group in trainer.optimizer.param_groups for weight in group["params"]}
    learning = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert len(learning) == len(rates) == 28  # A and B of 7 layers in 2 blocks
    for name, weight in learning.items():
        assert rates[id(weight)] == (0.04 if "lora_B" in name else 0.01), name
    assert losses(trainer)[2] < losses(trainer)[0]


def demo_model() -> tuple[PreTrainedModel, Run]:
    run = run_of("regime=full", "training.precision=fp32", "optim=muon", "optim.lr=0.01", "optim.weight_decay=0.1")
    return load_model(run, sft.MODEL_CLASS), run


def members(model: PreTrainedModel, optimizer: MuonAdamW) -> dict[str, int]:
    numbers = {id(weight): group["member"] for group in optimizer.param_groups for weight in group["params"]}
    return {name: numbers[id(weight)] for name, weight in model.named_parameters()}


def test_muon_takes_the_matrices_of_the_layers_and_adamw_embedding_head_and_norms() -> None:
    model, run = demo_model()
    for name, member in members(model, muon_and_adamw(model, run.optim)).items():
        assert member == (0 if "_proj" in name else 1), name


def test_a_step_is_that_of_torchs_own_muon_and_adamw() -> None:
    model, run = demo_model()
    twin = deepcopy(model)
    for weight, other in zip(model.parameters(), twin.parameters(), strict=True):
        weight.grad = torch.randn_like(weight)
        other.grad = weight.grad.clone()
    matrices = [weight for name, weight in twin.named_parameters() if "_proj" in name]
    norms = [weight for name, weight in twin.named_parameters() if "norm" in name]
    torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw").step()
    torch.optim.AdamW(norms, lr=0.01, weight_decay=0.0, betas=(0.95, 0.95)).step()
    torch.optim.AdamW([twin.get_input_embeddings().weight], lr=0.01, weight_decay=0.1, betas=(0.95, 0.95)).step()
    muon_and_adamw(model, run.optim).step()
    torch.testing.assert_close(dict(model.named_parameters()), dict(twin.named_parameters()), rtol=0, atol=0)


def test_a_loaded_state_goes_on_with_the_same_steps() -> None:
    model, run = demo_model()
    optimizer = muon_and_adamw(model, run.optim)
    gradients = [torch.randn_like(weight) for weight in model.parameters()]

    def step(weights: PreTrainedModel, of: MuonAdamW) -> None:
        for weight, gradient in zip(weights.parameters(), gradients, strict=True):
            weight.grad = gradient.clone()
        of.step()

    step(model, optimizer)
    twin = deepcopy(model)
    resumed = muon_and_adamw(twin, run.optim)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    step(twin, resumed)
    torch.testing.assert_close(dict(twin.named_parameters()), dict(model.named_parameters()), rtol=0, atol=0)


def test_a_schedule_reaches_both_members() -> None:
    model, run = demo_model()
    optimizer = muon_and_adamw(model, run.optim)
    before = model.state_dict()
    copies = {name: value.clone() for name, value in before.items()}
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    torch.testing.assert_close(model.state_dict(), copies, rtol=0, atol=0)


def test_muon_without_a_matrix_that_learns_names_another_optimizer() -> None:
    model, run = demo_model()
    for name, weight in model.named_parameters():
        weight.requires_grad_("norm" in name)
    with pytest.raises(ValueError, match="Use optim=adamw"):
        muon_and_adamw(model, run.optim)
