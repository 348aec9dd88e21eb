"""What a run may choose beside its regime trains, is saved and goes on from a checkpoint with the very same losses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conf.run_dir import RunDir
from conf.schema import Run
from launcher.gate.judge import refuse_incompatible
from launcher.rules.ranges import check_values
from tests.described import composed, described
from trainers.ranks.place import Place
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
    "evaluation.answers=0",
    "optim.lr=1e-2",
    "optim.warmup=0",
)
TOKENS = 'model.added_tokens=["What is","The answer"]'
VARIANTS = {
    "galore": ("regime=full", "optim=galore", "optim.rank=8", "optim.update_interval=3"),
    "apollo": ("regime=full", "optim=apollo", "optim.rank=8", "optim.update_interval=3"),
    "badam": ("regime=full", "optim=badam", "optim.switch_interval=3", "training.precision=bf16", "training.gradient_checkpointing=true"),
    "lora plus": ("regime=lora", "regime.lora_plus_ratio=8"),
    "new blocks": ("regime=freeze", "regime.layers=0", "regime.new_blocks=1"),
    "added tokens, full": ("regime=full", TOKENS, "model.vocab_multiple=64"),
    "added tokens, lora": ("regime=lora", TOKENS),
    "adapters in bf16": ("regime=lora", "training.precision=bf16"),
    "added tokens, qlora": ("regime=qlora", TOKENS, "training.precision=bf16"),
    "pissa": ("regime=lora", "regime.rank=4", "regime.init=pissa"),
}


def checked(folder: Path, *overrides: str) -> Run:
    check_values(composed(*SMALL, f"output={folder}", *overrides))
    run = described(*SMALL, f"output={folder}", *overrides)
    refuse_incompatible(run)
    return run


def started(folder: Path, *overrides: str) -> RunDir:
    run_dir = RunDir(folder / "run")
    run_dir.path.mkdir()
    assert train(checked(folder, *overrides), run_dir, Place(0, 0, 1)) == (0, "finished")
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
    assert train(checked(tmp_path, *VARIANTS[variant]), run_dir, Place(0, 0, 1)) == (0, "finished")
    assert losses(run_dir) == {step: straight[step] for step in (3, 4)}
    torch.testing.assert_close(weights(run_dir), final, rtol=0, atol=0)


def test_an_adapter_that_goes_on_learning_starts_where_it_ended(tmp_path: Path) -> None:
    first = started(tmp_path, "regime=lora")
    (tmp_path / "second").mkdir()
    overrides = ("regime=lora", f"regime.adapter={first.path}", "optim.lr=0", "training.max_steps=2")
    second = started(tmp_path / "second", *overrides)
    torch.testing.assert_close(weights(second), weights(first), rtol=0, atol=0)
    assert losses(second)[1] < losses(first)[1]


def test_an_adapter_goes_on_in_a_stage_with_a_head_of_its_own(tmp_path: Path) -> None:
    first = started(tmp_path, "regime=lora")
    (tmp_path / "second").mkdir()
    second = started(tmp_path / "second", "stage=rm", "regime=lora", f"regime.adapter={first.path}", "optim.lr=0", "training.max_steps=2")
    adapters = {name: tensor for name, tensor in weights(second).items() if ".lora_" in name}
    torch.testing.assert_close(adapters, weights(first), rtol=0, atol=0)
    assert any("score" in name for name in weights(second))


def test_an_adapter_of_other_layers_is_refused(tmp_path: Path) -> None:
    first = started(tmp_path, "regime=lora", "regime.targets=[q_proj]")
    other = checked(tmp_path, "regime=lora", f"regime.adapter={first.path}", "regime.targets=[q_proj,v_proj]")
    (tmp_path / "second").mkdir()
    with pytest.raises(ValueError, match=r"has no base_model\.model\.model\.layers\.0\.self_attn\.v_proj\.lora_A\.weight\. Set regime\.targets"):
        train(other, RunDir(tmp_path / "second"), Place(0, 0, 1))


def test_a_run_whose_evaluations_get_no_better_ends_early_with_its_best_checkpoint(tmp_path: Path) -> None:
    overrides = ("regime=lora", "data.validation_share=0.2", "optim.lr=0", "evaluation.interval=2", "evaluation.best_at_end=true")
    run_dir = started(tmp_path, *overrides, "evaluation.patience=2", "training.max_steps=10", "optim.scheduler=constant")
    assert max(losses(run_dir)) == 4  # evaluated before training and after steps 2 and 4, each time the same
    doing = [json.loads(line)["doing"] for line in run_dir.doing.read_text(encoding="utf-8").splitlines()]
    assert [what for what in doing if what != "evaluating"] == [
        "reading data",
        "joining the ranks",
        "loading weights",
        "preparing the training",
        "evaluating before the first step",
        "reading the first batch",
        "making the first step",
        "training",
        "saving the model",
        "drawing the pictures",
    ]


@pytest.mark.parametrize(
    ("keys", "evaluated"),
    [
        ("evaluation.interval=2", [0, 2, 4, 5]),
        ("evaluation.interval=2 evaluation.best_at_end=true", [0, 2, 4, 5]),
        ("evaluation.interval=2 evaluation.at_start=false evaluation.at_end=false", [2, 4]),
        ("evaluation.interval=0", []),
        ("evaluation.interval=0 evaluation.at_start=true", [0]),
        ("evaluation.interval=0 evaluation.at_end=true", [5]),
    ],
)
def test_each_evaluation_is_made_and_told_once(keys: str, evaluated: list[int], tmp_path: Path) -> None:
    """Five steps. With best_at_end the checkpoint that is loaded at the end has been evaluated at its step."""
    run_dir = started(tmp_path, "regime=lora", "data.validation_share=0.2", "training.max_steps=5", *keys.split())
    entries = [json.loads(line) for line in run_dir.progress.read_text(encoding="utf-8").splitlines()]
    assert [entry["step"] for entry in entries if "eval_loss" in entry] == evaluated
