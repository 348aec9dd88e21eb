"""The stages that learn from their own answers, on two ranks: what is learned is the same under every sharding, and a resume goes on exactly."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from reward_models import save_reward_model

from conf.run_dir import RunDir, save_run
from conf.schema import Run
from launcher.composition.compose import compose
from launcher.facts.node import settle_node
from launcher.gate.settle import settled
from launcher.launch.backends import command
from launcher.rules.ranges import check_values

pytestmark = pytest.mark.distributed

# ddp first: accelerate never leaves DeepSpeed again within one process
CELLS = [
    ("ppo", "full_fp32", "ddp"),
    ("grpo", "full_fp32", "ddp"),
    ("ppo", "full_fp32", "zero3"),
    ("ppo", "full_amp", "zero3"),
    ("ppo", "lora", "zero2"),
    ("grpo", "full_fp32", "zero3"),
    ("grpo", "lora", "zero2"),
]
RESUMED = [("ppo", "full_fp32", "ddp"), ("ppo", "lora", "zero2"), ("grpo", "lora", "zero2")]
FIRST = 1  # the step that a resumed run goes on from: in the middle of a rollout
SETTINGS = (
    "stage.response_length=6",
    "training.accumulation=2",
    "training.micro_batch=2",
    "training.gradient_checkpointing=false",
    "optim.lr=1e-3",
    "checkpoint.interval=1",
    "checkpoint.keep=9",
    "data.validation_share=0",
    "data.max_samples=32",
    "model.architecture.hidden_size=32",
)
STAGES = {"ppo": ("stage.epochs=2",), "grpo": ("stage.generations=4", "stage.rewards=[]", "stage.kl_coef=0.1")}
ZERO_STAGES = {"ddp": None, "zero2": 2, "zero3": 3}


def run_of(cells: ModuleType, cell: tuple[str, str, str], judge: Path, *more: str) -> Run:
    stage, regime, sharding = cell
    tiny = [override for override in cells.TINY if not override.startswith(("training.micro_batch", "optim.lr", "checkpoint.", "data.max", "model."))]
    common = ("model=demo", "data=demo", "node=cpu", f"sharding={sharding}", f"stage={stage}", f"stage.reward_model={judge}")
    run = compose([*common, *tiny, *cells.REGIMES[regime], *SETTINGS, *STAGES[stage], *more])
    check_values(run)
    return settled(run, settle_node(run.node, 1).node)


@pytest.fixture(scope="module")
def results(cells: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Any, ...], Any]:
    """What each cell left, and, under (*cell, "resumed"), what the same run left that began with the first one's checkpoint."""
    root = tmp_path_factory.mktemp("reinforcement")
    judge = save_reward_model(root / "judge")
    left = {}
    for cell in CELLS:
        left[cell] = cells.Left(RunDir(root / "-".join(cell)))
        left[cell].folder.checkpoints.mkdir(parents=True)
        save_run(run_of(cells, cell, judge), left[cell].folder)
    for cell in RESUMED:
        again = cells.Left(RunDir(root / "-".join((*cell, "resumed"))))
        again.folder.checkpoints.mkdir(parents=True)
        again.folder.checkpoint(FIRST).symlink_to(left[cell].folder.checkpoint(FIRST))
        again.folder.base.symlink_to(left[cell].folder.base)
        save_run(run_of(cells, cell, judge), again.folder)
        left[(*cell, "resumed")] = again
    start(cells, [left[cell].folder for cell in sorted(left, key=lambda cell: cell[2] != "ddp")], root)
    return left


def start(cells: ModuleType, folders: list[RunDir], root: Path) -> None:
    """All in one pair of ranks."""
    started = command(run_of(cells, CELLS[0], root / "judge"), RunDir(root))
    position = started.argv.index("trainers")
    argv = (*started.argv[: position - 1], str(cells.SCRIPT), *(str(folder.path) for folder in folders))
    done = subprocess.run(argv, env=started.environment(os.environ), capture_output=True, text=True, check=False, cwd=root)
    print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)


def entries(left: Any) -> dict[int, dict[str, float]]:
    """What was logged of each step, without times."""
    lines = [json.loads(line) for line in left.folder.progress.read_text().splitlines()]
    return {line["step"]: {key: line[key] for key in ("loss", "grad_norm", "reward", "kl", "lr") if key in line} for line in lines}


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_a_cell_trains_on_two_ranks_under_the_sharding_it_names(cell: tuple[str, str, str], results: dict[tuple[Any, ...], Any]) -> None:
    left = results[cell]
    log = left.folder.rank_log(0)
    assert [entry["code"] for entry in left.exits] == [0, 0], (left.exits, log.read_text()[-2000:] if log.exists() else "")
    assert [layout["world"] for layout in left.layouts] == [2, 2]
    assert {layout["zero_stage"] for layout in left.layouts} == {ZERO_STAGES[cell[2]]}
    assert len(left.losses) == 3
    assert entries(left)[1]["reward"] != 0
    assert any(line["kl"] != 0 for line in entries(left).values() if "kl" in line)
    assert (left.folder.model / ("adapter_model.safetensors" if "lora" in cell[1] else "model.safetensors")).is_file()


@pytest.mark.parametrize("stage", ["ppo", "grpo"])
def test_split_weights_write_the_same_answers_and_learn_the_same(stage: str, results: dict[tuple[Any, ...], Any]) -> None:
    whole, split = (entries(results[stage, "full_fp32", sharding]) for sharding in ("ddp", "zero3"))
    for step, line in whole.items():
        assert split[step] == pytest.approx(line, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("cell", RESUMED, ids="-".join)
def test_a_resumed_run_goes_on_exactly(cell: tuple[str, str, str], results: dict[tuple[Any, ...], Any]) -> None:
    whole, resumed = entries(results[cell]), entries(results[(*cell, "resumed")])
    assert [*resumed] == [step for step in whole if step > FIRST]
    assert all(resumed[step] == whole[step] for step in resumed)


def test_each_rank_keeps_its_own_rollout(results: dict[tuple[Any, ...], Any]) -> None:
    checkpoint = results["ppo", "full_fp32", "zero3"].folder.checkpoint(FIRST)
    files = sorted(path.name for path in checkpoint.glob("rollout_*"))
    assert files == ["rollout_0.safetensors", "rollout_1.safetensors"]
    assert (checkpoint / files[0]).read_bytes() != (checkpoint / files[1]).read_bytes()
