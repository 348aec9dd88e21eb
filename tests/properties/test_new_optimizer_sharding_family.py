"""An optimizer, a sharding and a model family from outside: with a YAML file and a row they are planned and trained; without the row, named."""

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from conf.optimizers import OPTIMIZERS, OptimizerRow
from conf.rows import MissingRow
from conf.run_dir import RunDir, load_run, save_run
from conf.schema import Run
from conf.shardings import SHARDINGS, ShardingRow
from launcher.cli import main
from launcher.composition.compose import compose
from launcher.facts.model.facts import Traits
from launcher.facts.model.families import FAMILIES, TWO_NORMS, Family, dense_modules
from launcher.gate.changes import sharding_moves
from launcher.gate.judge import judge_run
from tests.described import described
from trainers.arguments import optimizer_arguments
from trainers.optimizers import build
from trainers.ranks.place import Place
from trainers.run import train

HEAVY_BALL = """defaults: [/schema/optim/optim@_here_, _self_]
name: heavy_ball
lr: 0.01
weight_decay: 0.0
beta1: 0.9
beta2: 0.0
eps: 1.0e-8
max_grad_norm: 1.0
scheduler: constant
warmup: 0
"""
LARGE_BUCKETS = """defaults: [/schema/sharding/ddp@_here_, _self_]
name: large_buckets
bucket_mb: 100
"""
MADE_UP = """defaults: [demo, _self_]
name: made_up
architecture:
  model_type: made_up
"""
# Of conf/model/demo.yaml: a tied embedding; two layers of q and o, k and v, three matrices of the MLP and two norms; the last norm.
PARAMETERS = 264 * 128 + 2 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 352 + 2 * 128) + 128

ROWS: dict[str, tuple[dict[str, Any], str, Any]] = {
    "optim=heavy_ball": (OPTIMIZERS, "heavy_ball", OptimizerRow(keeps="moments", moments=1, step="in place", transformers=None)),
    "sharding=large_buckets": (SHARDINGS, "large_buckets", ShardingRow("torch", splits=(), nccl=7 * 2**20, hook=-1.0, saving=0)),
    "model=made_up": (
        FAMILIES,
        "made_up",
        Family(
            modules=dense_modules(False, False, False, TWO_NORMS),
            defaults={"max_position_embeddings": 512, "tie_word_embeddings": True},
            traits=Traits(two_masks=True),
        ),
    ),
}
NAMED = {
    "optim=heavy_ball": ("optim=heavy_ball has no row in OPTIMIZERS in conf/optimizers.py",),
    "sharding=large_buckets": ("sharding=large_buckets has no row in SHARDINGS in conf/shardings.py",),
    "model=made_up": ("model_type=made_up has no table here", "add a row to FAMILIES in launcher/facts/model/families.py"),
}
SMALL = ("data=demo", "node=cpu", "node.host_memory=8000000000", "cluster.ranks_per_node=1", "regime=full", "training.precision=fp32")
ONE_STEP = ("training.max_steps=1", "training.micro_batch=4", "evaluation.interval=0", "data.max_samples=32", "data.validation_share=0")
LAST = "backward: last layer"
Captured = pytest.CaptureFixture[str]


class MadeUpConfig(LlamaConfig):
    model_type = "made_up"


class MadeUpForCausalLM(LlamaForCausalLM):
    config_class = MadeUpConfig


def heavy_ball(model: PreTrainedModel, run: Run) -> torch.optim.Optimizer:
    return torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=run.optim.lr, momentum=run.optim.beta1)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What --config-dir is given."""
    for group, name, text in (("optim", "heavy_ball", HEAVY_BALL), ("sharding", "large_buckets", LARGE_BUCKETS), ("model", "made_up", MADE_UP)):
        (tmp_path / group).mkdir()
        (tmp_path / group / f"{name}.yaml").write_text(text)
    return tmp_path


def add_row(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table, name, row = ROWS[choice]
    monkeypatch.setitem(table, name, row)


def overrides_for(choice: str, *more: str) -> list[str]:
    group = choice.split("=")[0]
    others = {"model": "model=demo", "sharding": "sharding=ddp"}
    return [choice, *(text for other, text in others.items() if other != group), *more]


def plan(capsys: Captured, files: Path, *overrides: str) -> tuple[int, str]:
    """Exit code and everything said."""
    code = main(["plan", "--config-dir", str(files), *overrides])
    said = capsys.readouterr()
    return code, said.out + said.err


def terms(files: Path, *overrides: str, phase: str) -> dict[str, int]:
    found = judge_run(compose(overrides, [files])).estimate
    return {term.name: term.bytes for each in found.phases if each.name == phase for term in each.terms}


def train_one_step(run: Run, folder: Path) -> dict[str, Any]:
    """What the rank says that it was."""
    run_dir = RunDir(folder / "run" / "once")
    run_dir.path.mkdir(parents=True)
    save_run(run, run_dir)
    AcceleratorState._reset_state()
    GradientState._reset_state()
    assert train(load_run(run_dir), run_dir, Place(0, 0, 1)) == (0, "finished")
    gc.collect()
    layout: dict[str, Any] = json.loads(run_dir.layout_file(0).read_text())
    return layout


def one_step(files: Path, *overrides: str) -> Run:
    return described(*overrides, *ONE_STEP, f"data.cache={files}/cache", config_dirs=[files])


@pytest.mark.parametrize("choice", ROWS)
def test_without_its_row_a_choice_is_named_with_the_place_of_its_row(choice: str, files: Path, capsys: Captured) -> None:
    code, said = plan(capsys, files, *overrides_for(choice, *SMALL))
    assert code == 2
    for words in NAMED[choice]:
        assert words in said


def test_an_optimizer_with_a_row_counts_its_states_and_trains(files: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    add_row("optim=heavy_ball", monkeypatch)
    monkeypatch.setitem(build.BUILDERS, "heavy_ball", heavy_ball)
    overrides = overrides_for("optim=heavy_ball", *SMALL)

    assert plan(capsys, files, *overrides)[0] == 0
    assert terms(files, *overrides, phase="optimizer step")["optimizer states"] == 4 * PARAMETERS
    assert train_one_step(one_step(files, *overrides), files)["optimizer"] == "SGD"


def test_an_optimizer_that_lost_its_row_or_builder_is_neither_read_nor_trained_as_another(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as given:
        add_row("optim=heavy_ball", given)
        run = one_step(files, *overrides_for("optim=heavy_ball", *SMALL))
        save_run(run, RunDir(files))
        with pytest.raises(ValueError, match=r"optim=heavy_ball has no builder: .* trainers/optimizers/build.py"):
            build.builder_of("heavy_ball")

    with pytest.raises(MissingRow, match="optim=heavy_ball has no row"):
        load_run(RunDir(files))
    with pytest.raises(MissingRow, match="optim=heavy_ball has no row"):
        optimizer_arguments(run)


def test_a_sharding_with_a_row_is_planned_chosen_and_trained(files: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    add_row("sharding=large_buckets", monkeypatch)
    gpus = ("model=qwen2.5_0.5b", "data=demo", "node=h100_80", "node.gpus=2", "node.host_memory=64000000000", "sharding=large_buckets")

    assert plan(capsys, files, *gpus)[0] == 0
    judged = judge_run(compose(gpus, [files]))
    assert {term.name: term.bytes for term in judged.estimate.outside}["NCCL"] == 7 * 2**20
    fitted = judge_run(compose([*gpus, "training.fit=auto", "training.effective_batch=8"], [files]))
    assert fitted.run.sharding.name == "large_buckets"  # a step takes nine tenths of the time of ddp

    moves = [move.apply(judged.run).sharding.name for move in sharding_moves(judged.run)]
    assert moves == ["zero2", "zero3", "fsdp2", "zero2_offload", "zero3_offload"]  # all save more

    assert train_one_step(one_step(files, *overrides_for("sharding=large_buckets", *SMALL)), files)["zero_stage"] is None


def test_a_family_with_a_row_is_counted_with_its_traits_and_trained(files: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    add_row("model=made_up", monkeypatch)
    AutoConfig.register("made_up", MadeUpConfig, exist_ok=True)
    AutoModelForCausalLM.register(MadeUpConfig, MadeUpForCausalLM, exist_ok=True)
    overrides = overrides_for("model=made_up", *SMALL)

    assert plan(capsys, files, *overrides)[0] == 0
    assert terms(files, *overrides, phase="optimizer step")["weights"] == 4 * PARAMETERS
    eager = ("training.attention=eager", "training.gradient_checkpointing=true")
    one, two = (terms(files, *overrides_for(model, *SMALL, *eager), phase=LAST)["mask"] for model in ("model=demo", "model=made_up"))
    assert two == 2 * one > 0  # its row says that it has two masks
    on_gpu = judge_run(compose([text for text in overrides if not text.startswith("node=")] + ["node=h200_141"], [files]))
    assert on_gpu.estimate.uncertainty.share == 0.15  # and not that it was traced
    assert train_one_step(one_step(files, *overrides), files)["world"] == 1
