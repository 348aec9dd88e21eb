"""What a run may choose beside its regime trains, is saved and goes on from a checkpoint with the very same losses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conf.run_dir import RunDir
from conf.schema import Run
from launcher.compose import compose
from launcher.plan import refuse_incompatible
from launcher.settle import check_values, settle
from trainers.place import Place
from trainers.run import train

SMALL = (
    "model=demo",
    "data=demo",
    "data.max_samples=40",
    "data.validation_share=0",
    "data.cutoff=64",
    "model.architecture.hidden_size=32",
    "model.architecture.intermediate_size=64",
    "node=cpu",
    "cluster.ranks_per_node=1",
    "sharding=ddp",
    "training.precision=fp32",
    "training.max_steps=4",
    "training.micro_batch=2",
    "training.gradient_checkpointing=false",
    "checkpoint.interval=2",
    "evaluation.generate=null",
    "optim.lr=1e-2",
    "optim.warmup=0",
)
VARIANTS = {
    "galore": ("regime=full", "optim=galore", "optim.rank=8", "optim.update_interval=3"),
    "apollo": ("regime=full", "optim=apollo", "optim.rank=8", "optim.update_interval=3"),
    "badam": ("regime=full", "optim=badam", "optim.switch_interval=3", "training.precision=bf16", "training.gradient_checkpointing=true"),
    "lora plus": ("regime=lora", "regime.lora_plus_ratio=8"),
    "pissa": ("regime=lora", "regime.rank=4", "regime.init=pissa"),
}


def described(folder: Path, *overrides: str) -> Run:
    run = compose([*SMALL, f"output={folder}", *overrides])
    check_values(run)
    run = settle(run, run.node)
    refuse_incompatible(run)
    return run


def started(folder: Path, *overrides: str) -> RunDir:
    run_dir = RunDir(folder / "run")
    run_dir.path.mkdir()
    assert train(described(folder, *overrides), run_dir, Place(0, 0, 1)) == (0, "finished")
    return run_dir


def losses(run_dir: RunDir) -> dict[int, float]:
    entries = [json.loads(line) for line in run_dir.progress.read_text(encoding="utf-8").splitlines()]
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


def weights(run_dir: RunDir) -> dict[str, torch.Tensor]:
    return {name: tensor for path in run_dir.model.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_goes_on_from_a_checkpoint_ends_as_one_that_never_stopped(variant: str, tmp_path: Path) -> None:
    run_dir = started(tmp_path, *VARIANTS[variant])
    straight, final = losses(run_dir), weights(run_dir)
    assert straight[4] < straight[1]
    shutil.rmtree(run_dir.checkpoint(4))
    run_dir.progress.unlink()
    assert train(described(tmp_path, *VARIANTS[variant]), run_dir, Place(0, 0, 1)) == (0, "finished")
    assert losses(run_dir) == {step: straight[step] for step in (3, 4)}
    torch.testing.assert_close(weights(run_dir), final, rtol=0, atol=0)


def test_a_run_whose_evaluations_get_no_better_ends_early_with_its_best_checkpoint(tmp_path: Path) -> None:
    overrides = ("regime=lora", "data.validation_share=0.2", "optim.lr=0", "evaluation.interval=2", "evaluation.best_at_end=true")
    run_dir = started(tmp_path, *overrides, "evaluation.patience=2", "training.max_steps=10", "optim.scheduler=constant")
    assert max(losses(run_dir)) == 4  # evaluated before training and after steps 2 and 4, each time the same
